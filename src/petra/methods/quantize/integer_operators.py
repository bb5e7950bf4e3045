"""Operators that take part in an integer graph, and how one with its activation makes a unit of
it.
"""

from __future__ import annotations

from torch.fx import Node

from petra.model.aten.graph import (
    ACTIVATIONS,
    CONVOLUTIONS,
    VIEWS,
    argument,
    aten,
    is_float32,
    readers,
    shape_of,
    tensor_inputs,
)

_ARITHMETIC = {
    aten.add.Tensor,
    aten.mul.Tensor,
    aten.mean.dim,
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
}
# Their results are codes of their inputs, at most fewer or clipped.
_PASS_THROUGH = (VIEWS - {aten.expand.default, aten.chunk.default, aten.split.Tensor}) | {
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.pad.default,
    aten.constant_pad_nd.default,
    aten.cat.default,
    *ACTIVATIONS,
}


def is_convolution(node: Node) -> bool:
    return str(node.target).startswith(CONVOLUTIONS)


def is_arithmetic(node: Node) -> bool:
    """An operator with an integer kernel that computes new values from float32 tensors."""
    if node.op != "call_function" or node.target not in _ARITHMETIC or not is_float32(node):
        return False
    if node.target in (aten.add.Tensor, aten.mul.Tensor):
        operands = [
            operand
            for operand in node.args[:2]
            if isinstance(operand, Node) and is_float32(operand)
        ]
        if node.target is aten.mul.Tensor and any(operand.op == "get_attr" for operand in operands):
            return False  # a scale per channel, which one scale per tensor would blur
        return len(operands) == 2 and argument(node, 2, "alpha", 1) == 1
    if node.target is aten.mean.dim:
        rank, dims = len(shape_of(node.all_input_nodes[0])), argument(node, 1, "dim")
        spatial = sorted(int(d) % rank for d in dims) if isinstance(dims, (list, tuple)) else []
        return rank >= 3 and spatial == list(range(2, rank))
    return True


def is_integer_arithmetic(node: Node, integer: set[Node]) -> bool:
    """Whether the node computes codes from codes; one whose inputs are all float is left to float
    kernels.
    """
    return (
        node in integer
        and is_arithmetic(node)
        and any(source in integer for source in tensor_inputs(node))
    )


def moves_integers(node: Node, integer: set[Node]) -> bool:
    """Whether the node moves codes that exist; one that moves float values is followed by the
    rounding instead.
    """
    return (
        node in integer
        and is_pass_through(node)
        and any(source in integer for source in tensor_inputs(node))
    )


def is_pass_through(node: Node) -> bool:
    """An operator whose results are codes of its inputs, possibly clipped."""
    if node.op != "call_function" or node.target not in _PASS_THROUGH or not is_float32(node):
        return False
    if node.target in ACTIVATIONS:
        return len(node.all_input_nodes) == 1
    if node.target is aten.constant_pad_nd.default:
        return not argument(node, 2, "value", 0)
    if node.target is aten.pad.default:
        return argument(node, 2, "mode", "constant") == "constant" and not argument(
            node, 3, "value"
        )
    return all(is_float32(source) for source in tensor_inputs(node))


def end_of_unit(node: Node) -> Node:
    """Last node of the unit a layer or an arithmetic operator starts: itself, or the activation
    that alone reads it.
    """
    users = readers(node)
    fused = len(users) == 1 and users[0].target in ACTIVATIONS and users[0].args[0] is node
    return users[0] if fused else node


def is_fused_activation(node: Node, weighted: set[Node], integer: set[Node]) -> bool:
    """Whether the activation is the last node of a unit, which has annotated it already."""
    if node.target not in ACTIVATIONS:
        return False
    source = node.all_input_nodes[0]
    starts_unit = source in weighted or is_integer_arithmetic(source, integer)
    return starts_unit and end_of_unit(source) is node
