"""Multiply-accumulates of the calls of a traced graph."""

from __future__ import annotations

import math
from typing import cast

from torch.fx import Node

from petra.model.aten.graph import calls_weighted_layer, sizes


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
    if kind.startswith(("aten.lstm", "aten.gru", "aten.rnn", "petra.padded", "petra.dynamic_lstm")):
        # Their weights stand in lists among the arguments.
        weights = [sizes(source) for source in node.all_input_nodes[1:]]
        return math.prod(shapes[0][:2]) * sum(
            math.prod(shape) for shape in weights if len(shape) == 2
        )
    return 0


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
