"""Multiply-accumulates of the calls of a traced graph."""

from __future__ import annotations

import math
from typing import cast

from torch.fx import Node

from petra.model.aten.graph import calls_weighted_layer, sizes

RECURRENT = (
    *(f"aten.{kind}.input" for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")),
    "petra.padded_",
    "petra.dynamic_lstm",
)
"""Beginnings of names of operators that are whole recurrent layers."""


def multiply_accumulates(node: Node) -> int:
    """Multiply-accumulates of a call at the traced batch size; 0 for what is no matrix product."""
    kind = str(node.target) if node.op == "call_function" else ""
    if kind.startswith("aten.einsum"):
        equation, operands = cast(tuple[str, list[Node]], node.args[:2])
        return _multiplications(equation, [sizes(operand) for operand in operands])
    # One that is read twice counts twice.
    shapes = [sizes(operand) for operand in node.args if isinstance(operand, Node)]
    if kind.startswith("aten.conv_transpose"):
        return math.prod(shapes[0]) * math.prod(shapes[1][1:])
    if calls_weighted_layer(node):
        return math.prod(sizes(node)) * math.prod(shapes[1][1:])
    if kind.startswith(("aten.matmul", "aten.bmm", "aten.mm.")):
        return math.prod(sizes(node)) * shapes[0][-1]
    if kind.startswith("aten.baddbmm"):
        return math.prod(sizes(node)) * shapes[1][-1]
    if kind.startswith("aten.scaled_dot_product_attention"):
        return 2 * math.prod(shapes[0]) * shapes[1][-2]
    if matrices := recurrent_matrices(node):
        return math.prod(shapes[0][:2]) * sum(math.prod(sizes(matrix)) for matrix in matrices)
    return 0


def recurrent_matrices(node: Node) -> list[Node]:
    """What a call of a recurrent layer multiplies with, weights or their codes: for every layer and
    direction those of the input, of the state and of the projection. Empty for any other call.
    """
    kind = str(node.target) if node.op == "call_function" else ""
    if not kind.startswith(RECURRENT):
        return []
    # (x, hx, weights, ...) or (x, lengths, hx, weights or codes, ...)
    given = cast(list[Node], node.args[2 if kind.startswith("aten") else 3])
    return [weight for weight in given if len(sizes(weight)) == 2]


def _multiplications(equation: str, operands: list[list[int]]) -> int:
    """Of an einsum over two or more operands: one for every combination of indices."""
    size: dict[str, int] = {}
    for term, shape in zip(
        equation.partition("->")[0].replace(" ", "").split(","), operands, strict=True
    ):
        head, dots, tail = term.partition("...")
        end = len(shape) - len(tail)
        size |= dict(
            zip(head + tail, shape[: len(head)] + shape[end:] if dots else shape, strict=True)
        )
        if dots:
            size[dots] = max(size.get(dots, 1), math.prod(shape[len(head) : end]))
    return math.prod(size.values()) if len(operands) > 1 else 0
