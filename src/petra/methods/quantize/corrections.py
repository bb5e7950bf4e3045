"""Corrections of a quantized network's biases: rounding weights shifts the means of what layers put
out, and biases become codes too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.node import map_aggregate

from petra.methods.quantize.calibration import Rounding, in_order, rounding
from petra.model.aten.graph import (
    aten,
    calls_weighted_layer,
    constant,
    module_path,
    replace_constant,
)
from petra.tasks.inputs import Inputs

_DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default
_DEQUANTIZE_CHANNELS = torch.ops.quantized_decomposed.dequantize_per_channel.default


def bias_shift(y: Tensor, y_quantized: Tensor, axis: int) -> Tensor:
    """E[y] - E[y~] per channel, what the bias of a quantized layer lacks (Nagel et al. 2019,
    section 4.2).

    y, y_quantized: outputs of the layer in both networks, channels in dimension `axis` ->
    (channels,).
    """
    others = [d for d in range(y.ndim) if d != axis % y.ndim]
    return (y - y_quantized).mean(others)


class Correction(NamedTuple):
    """Paths of the layers corrected, and why others are not."""

    corrected: tuple[str, ...]
    skipped: dict[str, str]


def correct_biases(prepared: GraphModule, inputs: Inputs) -> Correction:
    """Add to every quantized layer's bias what its output's mean lost on `inputs`; in place.

    prepared: an observed graph that has been calibrated. Layers are corrected in the order of
    execution, each with the corrections before it at work, so that shifts do not add up. Layers
    without a bias of their own are left.

    Helps most with few weight codes and depthwise convolutions. Costs two forward passes, node by
    node.
    """
    skipped: dict[str, str] = {}
    layers: dict[Node, Node] = {}
    for node in prepared.graph.nodes:
        if (
            node.op != "call_function"
            or not calls_weighted_layer(node)
            or node.args[1].op != "call_module"
        ):
            continue
        bias = node.args[2] if len(node.args) > 2 else None
        if not isinstance(bias, Node) or constant(prepared, bias) is None:
            skipped[module_path(node)] = "has no bias to correct"
        elif len(bias.users) > 1:
            skipped[module_path(node)] = "shares its bias with another call"
        else:
            layers[node] = bias
    with rounding(prepared) as roundings, torch.no_grad():
        both = _BothNetworks(prepared, roundings, frozenset(layers))
        both.run(*in_order(prepared, inputs), enable_io_processing=False)
    for node, shift in both.shifts.items():
        value = constant(prepared, layers[node])
        assert value is not None
        replace_constant(prepared, layers[node], value + shift)
    return Correction(tuple(dict.fromkeys(module_path(node) for node in both.shifts)), skipped)


class _Both:
    """A value in the float network and in the quantized one."""

    def __init__(self, plain: Any, rounded: Any) -> None:
        self.plain, self.rounded = plain, rounded


class _BothNetworks(Interpreter):
    """Runs the float and the quantized network side by side and shifts the latter's layers to the
    former's means.
    """

    def __init__(
        self, prepared: GraphModule, roundings: Mapping[str, Rounding], layers: frozenset[Node]
    ) -> None:
        super().__init__(prepared)
        self.roundings, self.layers = roundings, layers
        self.shifts: dict[Node, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        run = getattr(self, n.op)
        if n.op in ("placeholder", "get_attr"):
            value = run(n.target, args, kwargs)
            return _Both(value, value)
        plain_args, plain_kwargs = _of((args, kwargs), "plain")
        if n.op == "call_module" and n.target in self.roundings:
            plain = plain_args[0]
        else:
            plain = run(n.target, plain_args, plain_kwargs)
        rounded = run(n.target, *_of((args, kwargs), "rounded"))
        if n in self.layers:
            axis = -1 if n.target is aten.linear.default else 1
            shift = bias_shift(plain, rounded, axis)
            self.shifts[n] = shift
            shape = [1] * rounded.ndim
            shape[axis] = -1
            rounded = rounded + shift.reshape(shape)
        return _Both(plain, rounded)


def _of(value: Any, network: str) -> Any:
    return map_aggregate(
        value, lambda item: getattr(item, network) if isinstance(item, _Both) else item
    )


def round_biases(converted: GraphModule) -> None:
    """Round the biases of int8 layers to the grid their int32 codes will have; in place.

    Integer kernels add bias codes of scale s_x s_w, the input's scale times the weight's. With the
    rounding done here PyTorch and the runtime compute from the same numbers.
    """
    for node in converted.graph.nodes:
        if node.op != "call_function" or not calls_weighted_layer(node) or len(node.args) < 3:
            continue
        data, weight, bias = node.args[:3]
        if not isinstance(bias, Node) or {data.target, weight.target} != {
            _DEQUANTIZE,
            _DEQUANTIZE_CHANNELS,
        }:
            continue
        value, weight_scale = constant(converted, bias), constant(converted, weight.args[1])
        if value is None or weight_scale is None or len(bias.users) != 1:
            continue
        step = weight_scale.double() * data.args[1]
        replace_constant(converted, bias, ((value.double() / step).round() * step).to(value.dtype))
