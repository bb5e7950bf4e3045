"""Operators that take part in an integer graph, and how one with its activation makes a unit of it:
as far as a runtime's kernels go.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import Node

from petra.core.kernels import Clip, Kernels
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

_AVERAGES = {aten.avg_pool1d.default, aten.avg_pool2d.default}
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


@dataclass(frozen=True)
class IntegerOperators:
    """What of a graph can run on codes with these kernels."""

    kernels: Kernels

    def is_arithmetic(self, node: Node) -> bool:
        """An operator with an integer kernel that computes new values from float32 tensors."""
        return _name(node) in self.kernels.arithmetic and is_float32(node) and _is_plain(node)

    def shares_range(self, node: Node) -> bool:
        """An operator whose results have the range of its inputs: codes of them, or their means."""
        if is_pass_through(node):
            return True
        return _name(node) in self.kernels.same_range and is_float32(node) and _is_plain(node)

    def takes_part(self, node: Node) -> bool:
        return self.is_arithmetic(node) or self.shares_range(node)

    def is_integer_arithmetic(self, node: Node, integer: set[Node]) -> bool:
        """Whether the node computes codes from codes; one whose inputs are all float is left to
        float kernels.
        """
        return node in integer and self.is_arithmetic(node) and _reads_any(node, integer)

    def moves_integers(self, node: Node, integer: set[Node]) -> bool:
        """Whether the node moves codes that exist; one that moves float values is followed by the
        rounding instead.
        """
        return node in integer and self.shares_range(node) and _reads_any(node, integer)

    def end_of_unit(self, node: Node) -> Node:
        """Last node of the unit a layer or an arithmetic operator starts: itself, or the activation
        that alone reads it, where the kernels clip so.
        """
        users = readers(node)
        alone = len(users) == 1 and users[0].target in ACTIVATIONS and users[0].args[0] is node
        return users[0] if alone and self._fuses(users[0]) else node

    def is_fused_activation(self, node: Node, weighted: set[Node], integer: set[Node]) -> bool:
        """Whether the activation is the last node of a unit, which has annotated it already."""
        if node.target not in ACTIVATIONS:
            return False
        source = node.all_input_nodes[0]
        starts_unit = source in weighted or self.is_integer_arithmetic(source, integer)
        return starts_unit and self.end_of_unit(source) is node

    def _fuses(self, activation: Node) -> bool:
        return self.kernels.clips is None or _clip(activation) in self.kernels.clips


def _name(node: Node) -> str:
    """Of an operator in ATen, such as ``add``; '' of anything else."""
    parts = str(node.target).split(".") if node.op == "call_function" else []
    return parts[1] if parts[:1] == ["aten"] else ""


def _is_plain(node: Node) -> bool:
    """Whether sums and products are of two tensors, and means over all spatial dimensions; True of
    other operators.
    """
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
    return node.target in _AVERAGES


def _reads_any(node: Node, values: set[Node]) -> bool:
    return any(source in values for source in tensor_inputs(node))


def _clip(activation: Node) -> Clip:
    """The bounds of a node that is one of `ACTIVATIONS`."""
    if activation.target is aten.relu.default:
        return 0.0, None
    if activation.target is aten.relu6.default:
        return 0.0, 6.0
    missing = (-1.0, 1.0) if activation.target is aten.hardtanh.default else (None, None)
    names = ("min_val", "max_val") if activation.target is aten.hardtanh.default else ("min", "max")
    low, high = (argument(activation, i + 1, names[i], missing[i]) for i in (0, 1))
    return _bound(low), _bound(high)


def _bound(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
