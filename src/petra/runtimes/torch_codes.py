"""Codes in a traced graph, in the spelling of converters that make codes themselves: float weights,
quantized and dequantized at once.

Quantized to the grid they lie on, such weights give the same codes again.
"""

from __future__ import annotations

import torch
import torchao.quantization.pt2e  # noqa: F401  (registers the operators of quantized graphs)
from torch import Tensor
from torch.fx import GraphModule, Node

from petra.model.aten.graph import constant
from petra.model.layers.quantized import decode

_CODES = torch.ops.quantized_decomposed


def spell_codes(graph: GraphModule) -> bool:
    """Write what holds codes as float weights between quantize and dequantize, and unsigned
    activations as signed ones; in place. Whether layers quantize their inputs on the spot.
    """
    ours, linear = torch.ops.petra, torch.ops.aten.linear.default
    dynamic = False
    for node in [node for node in graph.graph.nodes if node.op == "call_function"]:
        with graph.graph.inserting_before(node):
            if node.target is ours.decode.default:
                node.replace_all_uses_with(_weight(graph, *node.args))
            elif node.target in (ours.dynamic_linear.default, ours.int4_linear.default):
                x, stored, scale, *bias = node.args
                dynamic |= node.target is ours.dynamic_linear.default
                args = (x, _weight(graph, stored, scale), *bias)
                node.replace_all_uses_with(graph.graph.call_function(linear, args))
            elif node.target is _CODES.dequantize_per_channel.default:
                stored, scale, _, axis = node.args[:4]
                if constant(graph, stored) is not None:
                    node.replace_all_uses_with(_weight(graph, stored, scale, axis))
            elif node.args[-1:] == (torch.uint8,):
                x, scale, zero, low, high, _ = node.args
                node.args = (x, scale, zero - 128, low - 128, high - 128, torch.int8)
    graph.graph.eliminate_dead_code()
    return dynamic


def _weight(graph: GraphModule, stored: Node, scale: Node | None, axis: int | None = None) -> Node:
    """The float weight behind int8 codes with a scale for each index of one axis, quantized to them
    and back; that behind other codes as it is.
    """
    held = constant(graph, stored)
    scales = None if scale is None else constant(graph, scale)
    assert held is not None
    if axis is not None and scales is not None:
        scales = scales.reshape([-1 if i == axis else 1 for i in range(held.ndim)])
    weight = _constant(graph, decode(held, scales))
    if held.dtype != torch.int8 or scales is None:
        return weight
    axis = max(range(scales.ndim), key=lambda i: scales.shape[i]) if axis is None else axis
    zeros = torch.zeros(scales.numel(), dtype=torch.int64)
    grid = (_constant(graph, scales.reshape(-1)), _constant(graph, zeros), axis, -127, 127)
    coded = graph.graph.call_function(
        _CODES.quantize_per_channel.default, (weight, *grid, torch.int8)
    )
    return graph.graph.call_function(
        _CODES.dequantize_per_channel.default, (coded, *grid, torch.int8)
    )


def _constant(graph: GraphModule, value: Tensor) -> Node:
    name = f"_spelled_{len(graph._buffers)}"
    graph.register_buffer(name, value)
    return graph.graph.get_attr(name)
