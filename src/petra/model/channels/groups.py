"""Which channels can go, and which of them only together: traced, and proved by cutting a copy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

from petra.model.channels.breakage import BREAKAGE, breakage_in_words, outputs_of
from petra.model.channels.cut import SILENT, cut
from petra.model.channels.graph import ChannelGraph
from petra.model.channels.scout import amplify, shake
from petra.model.copies.copying import copy_model
from petra.model.kinds import BatchNorm, Convolution, is_weighted
from petra.model.reach import why_not_followed
from petra.model.surgery import has_derived_weight, output_layers, shared_weights
from petra.tasks.inputs import Inputs

PER_CHANNEL = (
    BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.PReLU,
)
RETRIES = 3
UNFOLLOWED = "how its channels are used cannot be followed"


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can be removed. `root` names the layer whose output channels number them;
    `units` are the smallest sets of them that can go, all of one size; `layers` are the layers
    whose outputs narrow. `segments` parts the units, by index, into those that are made by the same
    layers: the branches of a concatenation, otherwise all in one.
    """

    root: str
    units: tuple[tuple[int, ...], ...]
    layers: tuple[str, ...]
    segments: tuple[tuple[int, ...], ...]

    @property
    def unit_size(self) -> int:
        return len(self.units[0])


def find_groups(
    model: nn.Module,
    example: Inputs,
    *,
    generator: torch.Generator,
    enough: int | None = None,
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Groups that are proved safe to cut, each alone, and why the output channels of every other
    weighted layer stay; with `enough`, no more groups than that are looked for.

    Leaves `model` untouched. Cost: a copy of the model, a trace, and three forward passes per
    group.
    """
    copied = copy_model(model)
    shake(copied, generator)
    amplify(copied, example)
    scout = ChannelGraph(copied, example)
    candidates, refused = _candidates(scout, output_layers(model, lambda m: outputs_of(m, example)))
    groups: list[ChannelGroup] = []
    for group in candidates:
        if len(groups) == enough:
            break
        reason = _trial(scout, group, example, generator)
        for _ in range(RETRIES):
            if reason != SILENT:
                break
            shake(copied, generator)
            amplify(copied, example)
            reason = _trial(scout, group, example, generator)
        if reason:
            refused.update(dict.fromkeys(group.layers, reason))
        else:
            groups.append(group)
    cuttable = {path for g in groups for path in g.layers}
    weighted = [path for path, module in model.named_modules() if is_weighted(module)]
    unmet = [path for path in weighted if path not in cuttable and path not in refused]
    missing = why_not_followed(model, lambda m: outputs_of(m, example), unmet) if unmet else {}
    reasons = refused | {path: why or UNFOLLOWED for path, why in missing.items()}
    return groups, {path: reasons[path] for path in weighted if path not in cuttable}


def _candidates(
    graph: ChannelGraph, outputs: frozenset[str]
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Groups, in the order of the model's layers, that nothing speaks against but a trial; reasons
    for the others.
    """
    shared = shared_weights(graph.model)
    candidates: list[ChannelGroup] = []
    refused: dict[str, str] = {}
    for root, full, reason in graph.roots():
        layers = graph.narrowed_layers(full) if full else (root,)
        reason = reason or _objection(graph, full, outputs, shared)
        units: tuple[tuple[int, ...], ...] = ()
        segments: tuple[tuple[int, ...], ...] = ()
        if not reason:
            try:
                units = _units(graph, root, full)
                segments = _segments(graph, units, full)
            except BREAKAGE as error:
                reason = f"its couplings cannot be followed ({breakage_in_words(error)})"
        if not reason and len({len(u) for u in units}) != 1:
            reason = "its channels are coupled among themselves in sets of different sizes"
        if not reason and all(len(s) < 2 for s in segments):
            reason = "it has a single channel (or set of coupled channels)"
        if reason:
            refused.update(dict.fromkeys(layers, reason))
        else:
            candidates.append(ChannelGroup(root, units, layers, segments))
    position = {path: i for i, (path, _) in enumerate(graph.model.named_modules())}
    return sorted(candidates, key=lambda g: position[g.root]), refused


def _objection(
    graph: ChannelGraph, group: Any, outputs: frozenset[str], shared: Mapping[str, tuple[str, ...]]
) -> str:
    """Why a group cannot be cut, as far as its members tell; '' when a trial is worth it."""
    for dep, _ in group:
        module = dep.target.module
        if isinstance(module, nn.Parameter):
            owner = graph.owner_of(module)
            if isinstance(graph.model.get_submodule(owner), nn.RMSNorm):
                return f"RMSNorm {owner!r} normalises across its channels"
            continue
        if isinstance(module, tp.ops._OutputOp):
            return "its channels reach the model's output"
        path = graph.paths.get(module)
        if path is None:  # a functional operation
            continue
        if path in outputs and graph.narrows(dep):
            alone = graph.narrowed_layers(group) == (path,)
            return (
                "produces the model's output"
                if alone
                else f"coupled with the output layer {path!r}"
            )
        if path in shared:
            return (
                f"coupled with {path!r}, which shares a weight with"
                f" {', '.join(map(repr, shared[path]))}"
            )
        if has_derived_weight(module):
            return f"coupled with {path!r}, whose weight is computed from other parameters"
        if isinstance(module, nn.LayerNorm) or (
            isinstance(module, nn.GroupNorm) and module.num_groups == 1
        ):
            return f"{type(module).__name__} {path!r} normalises across its channels"
        if not is_weighted(module) and not isinstance(module, PER_CHANNEL):
            return f"coupled with {path!r}, a {type(module).__name__}, which cannot be cut"
    return ""


def _units(graph: ChannelGraph, root: str, full: Any) -> tuple[tuple[int, ...], ...]:
    """The smallest sets of channels that can go together, as a partition of the root's channels.

    Grouped convolutions must lose the same channels in every group, group norms whole groups (the
    statistics of the others then stay what they were); other couplings, halves of a chunk that are
    multiplied, say, are in the graph. What all this could miss, the trial cut finds.
    """
    width = graph.width(root)
    parent = list(range(width))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(channels: Iterable[int]) -> None:
        first, *rest = channels
        for other in rest:
            parent[find(other)] = find(first)

    for item in full:
        module = item.dep.target.module
        together: dict[int, list[int]] = {}
        if isinstance(module, nn.GroupNorm):
            size = module.num_channels // module.num_groups
            for channel, origin in zip(item.idxs, item.root_idxs, strict=True):
                together.setdefault(channel // size, []).append(origin)
        elif isinstance(module, Convolution) and 1 < module.groups < module.out_channels:
            channels = module.out_channels if graph.narrows(item.dep) else module.in_channels
            for channel, origin in zip(item.idxs, item.root_idxs, strict=True):
                together.setdefault(channel % (channels // module.groups), []).append(origin)
        for origins in together.values():
            join(origins)
    for pair in graph.couplings(root):
        join(pair)
    sets: dict[int, list[int]] = {}
    for i in range(width):
        sets.setdefault(find(i), []).append(i)
    return tuple(tuple(channels) for channels in sets.values())


def _segments(
    graph: ChannelGraph, units: Sequence[tuple[int, ...]], full: Any
) -> tuple[tuple[int, ...], ...]:
    """Indices of units that narrow the same layers, in the order of those layers' names.

    Where a concatenation is added to another layer's output, each branch makes some of that layer's
    channels only.
    """
    made_by: dict[int, set[str]] = {}
    for item in full:
        if is_weighted(item.dep.target.module) and graph.narrows(item.dep):
            for origin in item.root_idxs:
                made_by.setdefault(origin, set()).add(graph.paths[item.dep.target.module])
    parts: dict[frozenset[str], list[int]] = {}
    for index, unit in enumerate(units):
        parts.setdefault(frozenset().union(*(made_by[channel] for channel in unit)), []).append(
            index
        )
    return tuple(tuple(parts[layers]) for layers in sorted(parts, key=sorted))


def regroup(
    graph: ChannelGraph, groups: Sequence[ChannelGroup]
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """The same groups in a model that has been cut since they were found, and by their roots why
    some are none any more: a reader that is down to one channel is left nothing to give up."""
    found: list[ChannelGroup] = []
    lost: dict[str, str] = {}
    for g in groups:
        try:
            full = graph.group(g.root, range(graph.width(g.root)))
        except BREAKAGE as error:
            lost[g.root] = (
                f"its couplings cannot be followed any further ({breakage_in_words(error)})"
            )
            continue
        units = _units(graph, g.root, full)
        found.append(ChannelGroup(g.root, units, g.layers, _segments(graph, units, full)))
    return found, lost


def _trial(
    scout: ChannelGraph, group: ChannelGroup, example: Inputs, generator: torch.Generator
) -> str:
    """Cut a random half of every segment's units out of the scout; why that is wrong, else ''."""
    halves = [
        torch.randperm(len(s), generator=generator)[: len(s) // 2].tolist() for s in group.segments
    ]
    picked = [s[i] for s, half in zip(group.segments, halves, strict=True) for i in half]
    return cut(scout, group.root, [i for u in picked for i in group.units[u]], example, trial=True)
