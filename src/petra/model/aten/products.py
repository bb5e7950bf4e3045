"""Products with a constant matrix, written as the linear layers that they are.

Exact rewrites of an exported ATen graph, in place. Models say the same product as `x @ W`, as
`W @ x`, or as an einsum; integer kernels know one form of it.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from petra.model.aten.graph import (
    aten,
    constant,
    drop_unread_constants,
    insert_call,
    is_float32,
    new_constant,
    shape_of,
)


def products_as_linear(gm: GraphModule) -> None:
    """`x W + b`, `x W`, `W x` and einsums of x and W, for constant W, as linear layers."""
    made: dict[tuple[Node, tuple[int, ...]], Node] = {}
    for node in list(gm.graph.nodes):
        if node.op == "call_function" and (product := _product(gm, node)) is not None:
            _rewrite(gm, node, product, made)
    drop_unread_constants(gm)


@dataclass(frozen=True)
class _Product:
    """A contraction of an activation with a constant, by the letters of their dimensions."""

    x: Node
    x_letters: str
    matrix: Node
    matrix_letters: str
    out_letters: str
    bias: Node | None = None

    @property
    def contracted(self) -> str:
        return "".join(c for c in self.matrix_letters if c in self.x_letters)

    @property
    def kept(self) -> str:
        """Dimensions of the constant that are the result's."""
        return "".join(c for c in self.matrix_letters if c not in self.x_letters)

    @property
    def free(self) -> str:
        """Dimensions of the activation that are the result's."""
        return "".join(c for c in self.x_letters if c not in self.matrix_letters)

    def is_linear(self) -> bool:
        """Whether every dimension is either contracted, or one operand's and the result's."""
        once = all(len(set(s)) == len(s) for s in (self.x_letters, self.matrix_letters))
        parts = bool(self.contracted and self.kept and self.free)
        return once and parts and sorted(self.out_letters) == sorted(self.free + self.kept)


def _product(gm: GraphModule, node: Node) -> _Product | None:
    """The product that a call is, where it is one with a float32 constant."""
    found: _Product | None = None
    if node.target is aten.addmm.default and not node.kwargs:
        bias, x, matrix = node.args
        if isinstance(bias, Node) and bias.op == "get_attr" and len(shape_of(bias)) == 1:
            found = _matrix_product(x, matrix, bias)
    elif node.target in (aten.mm.default, aten.matmul.default):
        found = _matrix_product(node.args[0], node.args[1], None)
    elif node.target is aten.einsum.default:
        found = _einsum(node)
    if found is None or not found.is_linear() or not is_float32(found.x):
        return None
    weight = constant(gm, found.matrix)
    return found if weight is not None and weight.dtype == torch.float32 else None


def _matrix_product(x: object, y: object, bias: Node | None) -> _Product | None:
    if not isinstance(x, Node) or not isinstance(y, Node):
        return None
    rank, other = len(shape_of(x)), len(shape_of(y))
    rest = string.ascii_lowercase[: max(rank, other) - 2]
    if y.op == "get_attr" and x.op != "get_attr" and other == 2 and rank >= 2:
        return _Product(x, f"{rest}XY", y, "YZ", f"{rest}XZ", bias)
    if x.op == "get_attr" and y.op != "get_attr" and rank == 2 and other >= 2 and bias is None:
        return _Product(y, f"{rest}YZ", x, "XY", f"{rest}XZ")
    return None


def _einsum(node: Node) -> _Product | None:
    equation, operands = node.args[:2]
    if not isinstance(operands, (list, tuple)) or len(operands) != 2:
        return None
    terms = _letters(str(equation), [len(shape_of(o)) for o in operands if isinstance(o, Node)])
    if terms is None:
        return None
    first, second, out = terms
    left, right = operands
    if not isinstance(left, Node) or not isinstance(right, Node):
        return None
    if right.op == "get_attr" and left.op != "get_attr":
        return _Product(left, first, right, second, out)
    if left.op == "get_attr" and right.op != "get_attr":
        return _Product(right, second, left, first, out)
    return None


def _letters(equation: str, ranks: Sequence[int]) -> tuple[str, str, str] | None:
    """Letters of two operands and of the result, one for every dimension."""
    inputs, arrow, out = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    unused = [c for c in string.ascii_letters if c not in equation]
    longest = max(
        (rank - len(t) + 3 for t, rank in zip(terms, ranks, strict=True) if "..." in t), default=0
    )
    dots = "".join(unused[:longest])

    def spelt(term: str, rank: int) -> str:
        return (
            term.replace("...", dots[longest - (rank - len(term) + 3) :]) if "..." in term else term
        )

    first, second = (spelt(t, rank) for t, rank in zip(terms, ranks, strict=True))
    if arrow:
        return first, second, out.replace("...", dots)
    once = sorted(c for c in set(first + second) - set(dots) if (first + second).count(c) == 1)
    return first, second, dots + "".join(once)


def _rewrite(
    gm: GraphModule, node: Node, p: _Product, made: dict[tuple[Node, tuple[int, ...]], Node]
) -> None:
    weight = constant(gm, p.matrix)
    assert weight is not None
    order = tuple(p.matrix_letters.index(c) for c in p.kept + p.contracted)
    key = (p.matrix, (*order, len(p.kept)))
    if key not in made:
        first = next(iter(gm.graph.nodes))
        with gm.graph.inserting_before(first):
            rows = _as_rows(weight, order, len(p.kept))
            made[key] = new_constant(gm, f"_{node.name}_weight", rows, of=[p.matrix])
    sizes = [weight.shape[p.matrix_letters.index(c)] for c in p.kept]
    with gm.graph.inserting_before(node):
        x = _permuted(gm, p.x, p.x_letters, p.free + p.contracted, node)
        if len(p.contracted) > 1:
            x = insert_call(gm, aten.flatten.using_ints, (x, len(p.free), -1), node)
        args = (x, made[key]) if p.bias is None else (x, made[key], p.bias)
        y = insert_call(gm, aten.linear.default, args, node)
        if len(sizes) > 1:
            y = insert_call(gm, aten.unflatten.int, (y, -1, sizes), node)
        y = _permuted(gm, y, p.free + p.kept, p.out_letters, node)
    node.replace_all_uses_with(y)
    gm.graph.erase_node(node)


def _as_rows(weight: Tensor, order: tuple[int, ...], kept: int) -> Tensor:
    """(out, in) of a constant whose first `kept` dimensions, in `order`, are outputs."""
    moved = weight.permute(order)
    return moved.reshape(math.prod(moved.shape[:kept]), -1).contiguous()


def _permuted(gm: GraphModule, x: Node, letters: str, wanted: str, like: Node) -> Node:
    if letters == wanted:
        return x
    return insert_call(gm, aten.permute.default, (x, [letters.index(c) for c in wanted]), like)
