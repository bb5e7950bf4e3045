"""Transposed convolutions of an exported ATen graph, written as convolutions and a shuffle.

An exact rewrite, in place. With stride s, output position s q + r only meets every s-th entry of
the kernel, so each of the s remainders r is a convolution of its own (Shi et al. 2016, "Is the
deconvolution layer the same as a convolutional layer?"); integer kernels know those.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node
from torch.nn import functional

from petra.model.aten.graph import (
    argument,
    aten,
    constant,
    drop_unread_constants,
    insert_call,
    is_transposed,
    new_constant,
    shape_of,
)

_CONVOLUTIONS = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}


def transposed_as_convolutions(gm: GraphModule) -> None:
    """Rewrite transposed convolutions without groups and dilation, over positions of fixed
    number.
    """
    for node in list(gm.graph.nodes):
        if node.op != "call_function" or not is_transposed(node):
            continue
        weight_node, bias_node = node.args[1], argument(node, 2, "bias")
        weight = constant(gm, weight_node) if isinstance(weight_node, Node) else None
        plan = None if weight is None else _plan(node, weight)
        if weight is None or plan is None:
            continue
        bias = constant(gm, bias_node) if isinstance(bias_node, Node) else None
        with gm.graph.inserting_before(node):
            result = _write(gm, node, weight, bias, plan)
        node.replace_all_uses_with(result)
        gm.graph.erase_node(node)
    drop_unread_constants(gm)


@dataclass(frozen=True)
class _Axis:
    """One spatial dimension: stride, entries of the kernel for each remainder, padding of the
    convolution, and the piece of the shuffled result that is kept."""

    stride: int
    kernel: int
    padding: int
    start: int
    length: int

    @staticmethod
    def of(size: int, kernel: int, stride: int, padding: int, extra: int) -> _Axis:
        each = math.ceil(kernel / stride)
        length = (size - 1) * stride - 2 * padding + kernel + extra
        first, last = padding // stride, math.ceil((padding + length) / stride)
        before = each - 1 - first
        after = last - first + each - 1 - size - before
        most = max(before, after, 0)
        return _Axis(stride, each, most, padding - stride * (first - (most - before)), length)


def _plan(node: Node, weight: Tensor) -> list[_Axis] | None:
    dims = weight.ndim - 2
    sizes = shape_of(node.all_input_nodes[0])[2:]
    if argument(node, 6, "groups", 1) != 1 or len(sizes) != dims:
        return None
    if not all(isinstance(size, int) for size in sizes):
        return None
    stride, padding, extra, dilation = (
        _each(argument(node, place, name, default), dims)
        for place, name, default in (
            *((3, "stride", 1), (4, "padding", 0)),
            *((5, "output_padding", 0), (7, "dilation", 1)),
        )
    )
    if any(d != 1 for d in dilation):
        return None
    numbers = zip(map(int, sizes), weight.shape[2:], stride, padding, extra, strict=True)
    return [_Axis.of(*values) for values in numbers]


def _each(value: Any, dims: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * dims if len(values) == 1 else values


def _kernels(weight: Tensor, plan: list[_Axis]) -> Tensor:
    """(out * remainders, in, *kernel) of a weight (in, out, *kernel): W_r[t] = w[s (K - 1 - t) +
    r].
    """
    short = [
        amount
        for axis, size in zip(reversed(plan), reversed(weight.shape[2:]), strict=True)
        for amount in (0, axis.stride * axis.kernel - size)
    ]
    split = [n for axis in plan for n in (axis.kernel, axis.stride)]
    W = functional.pad(weight, short).reshape(*weight.shape[:2], *split)
    steps = list(range(2, W.ndim, 2))
    W = W.flip(steps).permute(1, *(d + 1 for d in steps), 0, *steps)
    return W.reshape(-1, weight.shape[0], *(axis.kernel for axis in plan)).contiguous()


def _write(
    gm: GraphModule, node: Node, weight: Tensor, bias: Tensor | None, plan: list[_Axis]
) -> Node:
    dims, outputs = len(plan), weight.shape[1]
    strides = [axis.stride for axis in plan]
    weight_node, bias_node = node.args[1], node.args[2] if len(node.args) > 2 else None
    assert isinstance(weight_node, Node)
    name, value = f"_{node.name}_kernels", _kernels(weight, plan)
    kernels = new_constant(gm, name, value, of=[weight_node])
    shift = None
    if bias is not None:
        repeated = bias.repeat_interleave(math.prod(strides))
        assert isinstance(bias_node, Node)
        shift = new_constant(gm, f"_{node.name}_bias", repeated, of=[bias_node])
    padding = [axis.padding for axis in plan]
    args = (node.args[0], kernels, shift, [1] * dims, padding, [1] * dims, 1)
    y = insert_call(gm, _CONVOLUTIONS[dims], args, node)
    if any(stride > 1 for stride in strides):
        y = insert_call(gm, aten.unflatten.int, (y, 1, [outputs, *strides]), node)
        order = [d for i in range(dims) for d in (2 + dims + i, 2 + i)]
        y = insert_call(gm, aten.permute.default, (y, [0, 1, *order]), node)
        for i in range(dims):
            y = insert_call(gm, aten.flatten.using_ints, (y, 2 + i, 3 + i), node)
    for i, axis in enumerate(plan):
        if (axis.start, axis.length) != (0, int(shape_of(y)[2 + i])):
            stop = axis.start + axis.length
            y = insert_call(gm, aten.slice.Tensor, (y, 2 + i, axis.start, stop), node)
    return y
