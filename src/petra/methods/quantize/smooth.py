"""Smoothing: the difficulty of outlier channels moved into the weights that read them.

Source: Xiao et al. 2023, SmoothQuant, equations 3 and 4. X W = (X / s)(s W) for any s > 0 per
channel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from petra.methods.quantize.calibration import in_order
from petra.methods.quantize.integer_operators import is_pass_through
from petra.model.aten.graph import (
    argument,
    aten,
    calls_weighted_layer,
    constant,
    is_float32,
    module_path,
    new_parameter,
    readers,
    replace_constant,
    sizes,
)
from petra.tasks.inputs import Inputs


def smoothing_scale(x_max: Tensor, w_max: Tensor, alpha: float) -> Tensor:
    """s_j = max|X_j|^alpha / max|W_j|^(1 - alpha), 1 where either is zero: (channels,) each."""
    s = x_max.pow(alpha) / w_max.clamp_min(1e-30).pow(1 - alpha)
    return torch.where((x_max > 0) & (w_max > 0), s, torch.ones_like(s))


@dataclass(frozen=True)
class Smoothing:
    """Paths of the smoothed layers, by whether their inputs' scale went into what makes them or is
    multiplied on, and why other linear layers are not smoothed.
    """

    folded: list[str] = field(default_factory=list)
    multiplied: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def smooth_layers(gm: GraphModule, calibration: Iterable[Inputs], alpha: float) -> Smoothing:
    """Smooth the inputs of all linear layers; in place, exact up to float rounding.

    Layers that read one value share one scale. 1 / s goes into the weights of the norm or layer
    that makes the value when nothing else reads it; otherwise, as behind the norms of BERT, which
    the residual sum reads too, the value is multiplied by 1 / s on its way to the layers. Where
    that would break a chain of integer operators nothing is done.

    alpha: 0 leaves all difficulty with the activations, 1 moves it to the weights; 0.5 shares it.
    Costs one forward pass over `calibration`, and in the exported file one small multiplication
    where the scale cannot be folded.
    """
    result = Smoothing()
    groups: dict[Node, list[Node]] = {}
    for node in gm.graph.nodes:
        if node.op != "call_function" or node.target is not aten.linear.default:
            continue
        source, weight = node.args[:2]
        if not isinstance(weight, Node) or weight.op != "get_attr" or len(weight.users) > 1:
            result.skipped[module_path(node)] = "its weight is computed or shared between calls"
        elif isinstance(source, Node) and is_float32(source):
            groups.setdefault(source, []).append(node)
    largest = _largest_values(gm, list(groups), calibration)
    for x, layers in groups.items():
        paths = [module_path(node) for node in layers]
        read: list[Any] = [node.args[1] for node in layers]
        weights = {node: constant(gm, node) for node in read}
        w_max = torch.stack([w.abs().amax(0) for w in weights.values() if w is not None]).amax(0)
        s = smoothing_scale(largest[x], w_max, alpha)
        held = _scaling_constants(x, len(s)) if set(readers(x)) == set(layers) else None
        if held:
            for name in held:
                value = constant(gm, name)
                assert value is not None
                replace_constant(gm, name, value / s.reshape(-1, *[1] * (value.ndim - 1)))
            result.folded.extend(paths)
        elif _may_stay_integer(x):
            result.skipped.update(
                dict.fromkeys(
                    paths, f"nothing before it can absorb the scale of its input {x.name}"
                )
            )
            continue
        else:
            with gm.graph.inserting_before(layers[0]):
                inverse = new_parameter(gm, f"_{x.name}_smoothing", 1 / s)
            with gm.graph.inserting_after(inverse):
                scaled = gm.graph.call_function(aten.mul.Tensor, (x, inverse))
            scaled.meta = {**layers[0].meta, "val": x.meta["val"]}
            for node in layers:
                node.replace_input_with(x, scaled)
            result.multiplied.extend(paths)
        for read, weight in weights.items():
            assert isinstance(read, Node)
            assert weight is not None
            replace_constant(gm, read, weight * s)
    gm.graph.lint()
    gm.recompile()
    return result


def _scaling_constants(x: Node, channels: int) -> list[Node] | None:
    """Constants whose division by s, along their first dimension, divides x by s channel by
    channel; None if none do.

    Found in a layer norm's or RMS norm's weight and bias, in a product with a constant (RMS norms
    written out), and in the rows of a linear layer, also through ReLU and as one factor of a gate.
    """
    if x.target in (aten.relu.default, aten.leaky_relu.default):
        return _scaling_constants_below(x.args[0], channels)
    shape: Any = x.args[1] if len(x.args) > 1 else ()
    if x.target in (aten.layer_norm.default, aten.rms_norm.default) and len(shape) != 1:
        return None  # the norm runs over more than the channels
    if x.target is aten.layer_norm.default:
        return _owned([argument(x, 2, "weight"), argument(x, 3, "bias")], channels)
    if x.target is aten.rms_norm.default:
        return _owned([argument(x, 2, "weight")], channels)
    if x.target is aten.linear.default:
        return _owned([x.args[1], argument(x, 2, "bias")], channels)
    if x.target is aten.mul.Tensor:
        for operand in x.args[:2]:
            if isinstance(operand, Node) and operand.op == "get_attr":
                return _owned([operand], channels)
        for operand in x.args[:2]:
            if found := _scaling_constants_below(operand, channels):
                return found
    return None


def _scaling_constants_below(node: object, channels: int) -> list[Node] | None:
    if not isinstance(node, Node) or len(readers(node)) != 1 or sizes(node)[-1:] != [channels]:
        return None
    return _scaling_constants(node, channels)


def _owned(values: list[object], channels: int) -> list[Node] | None:
    """The constants of `values`, when there are some, each read once and with channels first."""
    if values[0] is None:
        return None
    held = [value for value in values if value is not None]
    for value in held:
        if not isinstance(value, Node) or value.op != "get_attr" or len(value.users) > 1:
            return None
        if sizes(value)[:1] != [channels]:
            return None
    return [value for value in held if isinstance(value, Node)]


def _may_stay_integer(x: Node) -> bool:
    """Whether the value may be made by integer kernels, by operators that only move codes."""
    while is_pass_through(x) and isinstance(x.args[0], Node):
        x = x.args[0]
    return x.op == "call_function" and (
        calls_weighted_layer(x) or x.target in (aten.add.Tensor, aten.mean.dim)
    )


def _largest_values(
    gm: GraphModule, nodes: list[Node], calibration: Iterable[Inputs]
) -> dict[Node, Tensor]:
    """max|X_j| over all batches and all dimensions but the last, for the values `nodes` make."""
    found: dict[Node, Tensor] = {}

    class Recorder(Interpreter):
        def run_node(self, n: Node) -> object:
            value = super().run_node(n)
            if n in nodes:
                seen = value.detach().abs().flatten(0, -2).amax(0)
                found[n] = torch.maximum(found[n], seen) if n in found else seen
            return value

    recorder = Recorder(gm)
    with torch.no_grad():
        for inputs in calibration:
            recorder.run(*in_order(gm, inputs), enable_io_processing=False)
    return found
