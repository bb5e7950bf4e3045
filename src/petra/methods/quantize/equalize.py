"""Cross-layer equalisation: ranges of channels between two layers made alike; same function.

Source: Nagel, van Baalen, Blankevoort & Welling 2019, Data-Free Quantization Through Weight
Equalization and Bias Correction, section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from petra.model.aten.graph import (
    argument,
    aten,
    calls_weighted_layer,
    constant,
    module_path,
    readers,
    replace_constant,
)

_HOMOGENEOUS = {
    aten.relu.default,
    aten.leaky_relu.default,
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.avg_pool3d.default,
}
"""Operators with f(s x) = s f(x) for s > 0, channel by channel."""

_ROUNDS, _SETTLED = 20, 1e-3


def equalizing_scale(r1: Tensor, r2: Tensor) -> Tensor:
    """s = sqrt(r1 / r2) per channel; 1 where a range is zero.

    W1 / s and W2 s then have one range, sqrt(r1 r2).
    """
    return torch.where((r1 > 0) & (r2 > 0), (r1 / r2.clamp_min(1e-30)).sqrt(), torch.ones_like(r1))


def output_ranges(weight: Tensor) -> Tensor:
    """Largest |w| of every output channel: (out, ...) -> (out,)."""
    return weight.abs().flatten(1).amax(1)


def input_ranges(weight: Tensor, groups: int) -> Tensor:
    """Largest |w| that reads every input channel: (out, in / groups, ...) -> (in,)."""
    grouped = weight.abs().reshape(groups, len(weight) // groups, weight.shape[1], -1)
    return grouped.amax((1, 3)).flatten()


def scale_inputs(weight: Tensor, s: Tensor, groups: int) -> Tensor:
    """W, input channel i multiplied by s_i: weight (out, in / groups, ...), s (in,)."""
    grouped = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
    return (grouped * s.reshape(groups, 1, -1, 1)).reshape(weight.shape)


@dataclass(frozen=True)
class Pair:
    """Two layers, the second the first's only reader, by positively homogeneous operators."""

    first: Node
    second: Node

    @property
    def paths(self) -> tuple[str, str]:
        return module_path(self.first), module_path(self.second)


def equalizable_pairs(gm: GraphModule) -> tuple[list[Pair], dict[str, str]]:
    """Pairs in the order of the graph, and for the other layers why they lead no pair."""
    pairs, skipped = [], {}
    for node in gm.graph.nodes:
        if node.op != "call_function" or not calls_weighted_layer(node):
            continue
        found = _partner(node)
        if isinstance(found, Node):
            pairs.append(Pair(node, found))
        else:
            skipped[module_path(node)] = found
    return pairs, skipped


def _partner(layer: Node) -> Node | str:
    if not _owns_weight(layer):
        return "shares its weight with another call"
    node = layer
    while True:
        users = readers(node)
        if len(users) != 1:
            return "several readers of its output" if users else "nothing reads its output"
        reader = users[0]
        if calls_weighted_layer(reader) and reader.op == "call_function" and reader.args[0] is node:
            break
        if reader.target not in _HOMOGENEOUS:
            return (
                "the model's output"
                if reader.op == "output"
                else f"{reader.target} does not scale with its input"
            )
        node = reader
    if (reader.target is aten.linear.default) != (
        layer.target is aten.linear.default
    ) or not _owns_weight(reader):
        return f"what reads it, {module_path(reader)!r}, cannot take the scale"
    return reader


def _owns_weight(layer: Node) -> bool:
    """Whether weight and bias are constants that this call alone reads."""
    held = [value for value in (layer.args[1], argument(layer, 2, "bias")) if value is not None]
    return all(
        isinstance(value, Node) and value.op == "get_attr" and len(value.users) == 1
        for value in held
    )


def equalize_layers(gm: GraphModule) -> tuple[list[Pair], dict[str, str]]:
    """Equalise all pairs until the scales settle; in place, exact up to float rounding.

    A pair's second layer may be the first of another, so that whole chains come to one range.
    Returns what `equalizable_pairs` does. Cost: a few passes over the weights.
    """
    pairs, skipped = equalizable_pairs(gm)
    nodes = {
        node for pair in pairs for layer in (pair.first, pair.second) for node in _constants(layer)
    }
    values: dict[Node, Tensor] = {
        node: value for node in nodes if (value := constant(gm, node)) is not None
    }
    for _ in range(_ROUNDS):
        furthest = 0.0
        for pair in pairs:
            first, second = pair.first.args[1], pair.second.args[1]
            bias, groups = argument(pair.first, 2, "bias"), _groups(pair.second)
            assert isinstance(first, Node)
            assert isinstance(second, Node)
            s = equalizing_scale(output_ranges(values[first]), input_ranges(values[second], groups))
            values[first] = values[first] / s.reshape(-1, *[1] * (values[first].ndim - 1))
            if isinstance(bias, Node):
                values[bias] = values[bias] / s
            values[second] = scale_inputs(values[second], s, groups)
            furthest = max(furthest, float(s.log().abs().max()))
        if furthest < _SETTLED:
            break
    for node, value in values.items():
        replace_constant(gm, node, value)
    return pairs, skipped


def _constants(layer: Node) -> list[Node]:
    return [
        value for value in (layer.args[1], argument(layer, 2, "bias")) if isinstance(value, Node)
    ]


def _groups(layer: Node) -> int:
    groups = 1 if layer.target is aten.linear.default else argument(layer, 6, "groups", 1)
    assert isinstance(groups, int)
    return groups
