"""One cut: remove channels everywhere at once, and prove that nothing else changed.

Torch-Pruning reads the autograd graph, where slices, pads and hard-coded views look like operations
that keep channels in place, so some of its groups are wrong, and a wrong cut can still have the
right shape. The proof asked of every cut: the network without the channels must compute what it
computed when the layers that read them ignored them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from petra.model.channels.breakage import BREAKAGE, breakage_in_words, outputs_of
from petra.model.channels.graph import ChannelGraph
from petra.model.kinds import channel_dim
from petra.model.surgery import evaluating
from petra.tasks.inputs import Inputs, comparable

SILENT = (
    "its channels have no effect on the output for the example inputs, so a cut cannot be checked"
)


def cut(
    graph: ChannelGraph, root: str, channels: Sequence[int], example: Inputs, *, trial: bool = False
) -> str:
    """Remove output `channels` of layer `root`, and all that depends on them, from the model.

    Returns '' when the result computes, on `example`, what the model computes with those channels
    ignored by their readers; otherwise what is wrong, and then the model is as it was. A `trial`
    leaves the model as it was in any case, and also objects when ignoring the channels changes
    nothing, since then nothing was checked. Cost: three forward passes.
    """
    with evaluating(graph.model), torch.no_grad():
        try:
            group = graph.group(root, channels)
        except BREAKAGE as error:
            return f"its couplings cannot be followed ({breakage_in_words(error)})"
        if set(group[0].idxs) != set(channels):
            return "its channels are coupled among themselves in a way that could not be resolved"
        before = outputs_of(graph.model, example)
        with _ignored(graph, group):
            expected = outputs_of(graph.model, example)
        try:
            undo = graph.remove(group)
        except BREAKAGE as error:
            return _no_longer_runs(error)
        try:
            wrong = disagreement(
                before, expected, outputs_of(graph.model, example), must_show=trial
            )
        except BREAKAGE as error:
            wrong = _no_longer_runs(error)
        if wrong or trial:
            undo()
        return wrong


def disagreement(
    before: list[Tensor], expected: list[Tensor], got: list[Tensor], *, must_show: bool
) -> str:
    """What is wrong with outputs after a cut, `got`; '' when nothing is. `expected` are those of a
    model that ignores what goes. With `must_show`, it is also wrong that this changes nothing."""
    if [t.shape for t in got] != [t.shape for t in expected]:
        return "removing its channels changes the shape of the output"
    before, expected, got = ([comparable(t) for t in ts] for ts in (before, expected, got))
    scale = max(float(t.abs().max()) for t in before)
    if not math.isfinite(scale):
        return "the model's output for the example inputs is not finite, so a cut cannot be checked"
    precision = max(torch.finfo(t.dtype).eps for t in before if t.is_floating_point())
    noise = 1e3 * precision * scale
    effect = max(
        float((a.double() - b.double()).abs().max()) for a, b in zip(before, expected, strict=True)
    )
    error = max(
        float((a.double() - b.double()).abs().max()) for a, b in zip(expected, got, strict=True)
    )
    if not error <= max(noise, 0.01 * effect):  # also when it is not a number
        return (
            "an operation on the way (a slice, a pad, a sum over channels) does not keep its"
            " channels in place"
        )
    if must_show and effect <= noise:
        return SILENT
    return ""


@contextmanager
def _ignored(graph: ChannelGraph, group: Any) -> Iterator[None]:
    """Inside, the layers that read the group's channels have zero weights for them."""
    saved: list[tuple[Tensor, Tensor]] = []
    for dep, channels in group:
        module = dep.target.module
        if graph.reads(dep):
            saved.append((module.weight, module.weight.clone()))
            dim = 1 - channel_dim(module)
            # Grouped convolutions read the same inputs in every group.
            per_group = module.weight.shape[dim]
            index = sorted({c % per_group for c in channels})
            module.weight.index_fill_(dim, torch.tensor(index, device=module.weight.device), 0.0)
    try:
        yield
    finally:
        for weight, values in saved:
            weight.copy_(values)


def _no_longer_runs(error: BaseException) -> str:
    return f"without some of its channels the model no longer runs ({breakage_in_words(error)})"
