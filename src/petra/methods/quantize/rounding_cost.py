"""Which layers cost the most quality when they are quantized, measured by forward passes alone.

By how far predictions move (as Cai et al. 2020, "ZeroQ", by the divergence between a model's
outputs before and after), not by what the task's loss rises by: rounding one layer moves
predictions a little in every direction, so that on a hundred items the rise is mostly chance and
often negative, while the distance hardly depends on the items drawn. Measured once, by hand, on
ResNet-20, CIFAR-10, 20 layers, five draws of 128 training items: rank correlation between draws at
weight_max 64 / 7 / 2 is 0.97 / 0.99 / 0.99 for the distance and 0.0 / 0.1 / 0.7 for the rise in
loss. Where accuracy really falls (at 2), the distance has the four layers of worst validation loss
in every draw and correlates with the fall in accuracy at 0.80 to 0.84 (rise in loss: 0.57 to 0.82);
at 64 and 7, effects are noise and neither predicts them. Of tasks that are judged by their error it
is that error's rise, with the chance taken out of it (`RiseOfError`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import GraphModule, Node

from petra.core.interface import judged_output
from petra.methods.quantize.calibration import Rounding, rounding
from petra.methods.quantize.worse import Worse, moved
from petra.model.aten.graph import ACTIVATIONS, calls_weighted_layer, module_path
from petra.tasks.inputs import Inputs, Outputs, call, predictions


def sensitivities(
    prepared: GraphModule, batches: Sequence[Inputs], worse: Worse = moved
) -> dict[str, float]:
    """How much `worse` predictions are when a layer alone is quantized, by layer, the largest
    first.

    prepared: an observed graph that has been calibrated; it is left as it was. A layer is its
    module path, and what is rounded for it are its weight, its input and, where the graph quantizes
    that, its output. Cost: one forward pass over `batches` per layer, and one.
    """
    with rounding(prepared) as roundings, torch.no_grad():
        own = _roundings_by_layer(prepared, roundings)
        for every in roundings.values():
            every.on = False
        reference = _outputs(prepared, batches)
        found = {}
        for path, parts in own.items():
            for part in parts:
                part.on = True
            found[path] = worse(_outputs(prepared, batches), reference)
            for part in parts:
                part.on = False
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _outputs(prepared: GraphModule, batches: Sequence[Inputs]) -> Outputs:
    """By name, the one that is judged and all others that have a part for each item."""
    found = [predictions(call(prepared, inputs)) for inputs in batches]
    main = judged_output(tuple(found[0]))
    shapes = {name: {o[name].shape[1:] for o in found if o[name].ndim} for name in found[0]}
    names = [name for name in found[0] if name == main or len(shapes[name]) == 1]
    return {name: torch.cat([outputs[name] for outputs in found]) for name in names}


def _roundings_by_layer(
    prepared: GraphModule, roundings: dict[str, Rounding]
) -> dict[str, list[Rounding]]:
    found: dict[str, list[Rounding]] = {}
    for node in prepared.graph.nodes:
        if node.op != "call_function" or not calls_weighted_layer(node):
            continue
        ends = [node, *(user for user in node.users if user.target in ACTIVATIONS)]
        around = [*node.args[:2], *(user for end in ends for user in end.users)]
        parts = [
            roundings[n.target] for n in around if isinstance(n, Node) and n.target in roundings
        ]
        if parts and node.args[1].op == "call_module":
            found.setdefault(module_path(node), []).extend(parts)
    return found
