"""Which channels can go, and which of them only together: found by tracing, proved by cutting a copy."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from petra.methods.prune import importance
from petra.methods.prune.cut import SILENT, cut
from petra.methods.prune.graph import BREAKAGE, WEIGHTED, ChannelGraph, channel_dim, first_line, outputs_of
from petra.model.surgery import has_derived_weight, output_layers, shared_weights
from petra.tasks.inputs import Inputs

PER_CHANNEL = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.PReLU)
RETRIES = 3


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that can be removed. `root` names the layer whose output channels number them; `units` are the smallest
    sets of them that can go, all of one size; `layers` are the layers whose outputs narrow."""

    root: str
    units: tuple[tuple[int, ...], ...]
    layers: tuple[str, ...]

    @property
    def unit_size(self) -> int:
        return len(self.units[0])


def find_groups(
    model: nn.Module, example: Inputs, *, generator: torch.Generator
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Groups that are proved safe to cut, and why the output channels of every other weighted layer must stay.

    Leaves `model` untouched. Cost: a copy of the model and a trace, once more for every group that fails its trial,
    and three forward passes per group.
    """
    scout = _scout(model, example, generator)
    candidates, refused = _candidates(scout, output_layers(model, lambda m: outputs_of(m, example)))
    groups: list[ChannelGroup] = []
    fresh = True  # whether the scout is still uncut
    for group in candidates:
        reason = _trial(scout, group, example, generator)
        for _ in range(RETRIES):
            if not reason or (fresh and reason != SILENT):
                break  # proved right, or wrong for sure: only silence and the scars of earlier cuts deserve a retry
            scout, fresh = _scout(model, example, generator), True
            reason = _trial(scout, group, example, generator)
        fresh = False
        if reason:
            refused.update(dict.fromkeys(group.layers, reason))
            scout, fresh = _scout(model, example, generator), True
        else:
            groups.append(group)
    cuttable = {path for g in groups for path in g.layers}
    unreached = "the example inputs do not reach it"
    weighted = [path for path, module in model.named_modules() if isinstance(module, WEIGHTED)]
    return groups, {path: refused.get(path, unreached) for path in weighted if path not in cuttable}


def _candidates(graph: ChannelGraph, outputs: frozenset[str]) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Groups, in the order of the model's layers, that nothing speaks against but a trial; reasons for the others."""
    shared = shared_weights(graph.model)
    candidates: list[ChannelGroup] = []
    refused: dict[str, str] = {}
    for root, full in graph.roots():
        layers = graph.narrowed_layers(full)
        reason = _objection(graph, full, outputs, shared)
        units: tuple[tuple[int, ...], ...] = ()
        if not reason:
            try:
                units = _units(graph, root, full)
            except BREAKAGE as error:
                reason = f"its couplings cannot be followed ({first_line(error)})"
        if not reason and len({len(u) for u in units}) != 1:
            reason = "its channels are coupled among themselves in sets of different sizes"
        if not reason and len(units) < 2:
            reason = "it has a single channel (or set of coupled channels)"
        if reason:
            refused.update(dict.fromkeys(layers, reason))
        else:
            candidates.append(ChannelGroup(root, units, layers))
    position = {path: i for i, (path, _) in enumerate(graph.model.named_modules())}
    return sorted(candidates, key=lambda g: position[g.root]), refused


def _scout(model: nn.Module, example: Inputs, generator: torch.Generator) -> ChannelGraph:
    """A copy to cut, its weights shaken so that no channel is silent by chance (zero-initialised gains, for one)."""
    scout = copy.deepcopy(model)
    for p in scout.parameters():
        if p.is_floating_point():
            noise = torch.randn(p.shape, generator=generator).to(p)
            p.data = torch.where(p.data == 0, 0.1 * noise, p.data * (1 + 0.1 * noise))
            p.requires_grad_(True)
    return ChannelGraph(scout, example)


def _objection(graph: ChannelGraph, group: Any, outputs: frozenset[str], shared: Mapping[str, tuple[str, ...]]) -> str:
    """Why a group cannot be cut, as far as its members tell; '' when nothing speaks against a trial."""
    for dep, _ in group:
        module = dep.target.module
        if isinstance(module, nn.Parameter):
            continue
        if isinstance(module, tp.ops._OutputOp):
            return "its channels reach the model's output"
        path = graph.paths.get(module)
        if path is None:  # a functional operation
            continue
        if path in outputs and graph.narrows(dep):
            alone = graph.narrowed_layers(group) == (path,)
            return "produces the model's output" if alone else f"coupled with the output layer {path!r}"
        if path in shared:
            return f"coupled with {path!r}, which shares a weight with {', '.join(map(repr, shared[path]))}"
        if has_derived_weight(module):
            return f"coupled with {path!r}, whose weight is computed from other parameters"
        if isinstance(module, nn.LayerNorm | nn.GroupNorm):
            return f"{type(module).__name__} {path!r} normalises across its channels"
        if not isinstance(module, (*WEIGHTED, *PER_CHANNEL)):
            return f"coupled with {path!r}, a {type(module).__name__}, which cannot be cut"
    return ""


def _units(graph: ChannelGraph, root: str, full: Any) -> tuple[tuple[int, ...], ...]:
    """The smallest sets of channels that can go together, as a partition of the root's channels.

    Grouped convolutions must lose the same channels in every group. Other couplings (halves of a chunk that are
    multiplied, say) show when a single channel drags others along; asking for each channel would cost a graph walk
    per channel, so four are asked first and all only if one of them is coupled. What that could miss, the trial
    cut finds.
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
        groups = getattr(module, "groups", 1) if isinstance(module, nn.modules.conv._ConvNd) else 1
        if 1 < groups < module.out_channels and len(item.idxs) % groups == 0:
            per_group = len(item.idxs) // groups
            for start in range(per_group):
                join(item.root_idxs[start::per_group])
    dragged = {i: graph.group(root, [i])[0].idxs for i in {0, 1 % width, width // 2, width - 1}}
    if any(len(channels) > 1 for channels in dragged.values()):
        dragged = {i: graph.group(root, [i])[0].idxs for i in range(width)}
    for channels in dragged.values():
        join(channels)
    sets: dict[int, list[int]] = {}
    for i in range(width):
        sets.setdefault(find(i), []).append(i)
    return tuple(tuple(channels) for channels in sets.values())


def regroup(graph: ChannelGraph, groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
    """The same groups in a model that has been cut since they were found."""
    found = []
    for g in groups:
        full = graph.group(g.root, range(graph.width(g.root)))
        found.append(ChannelGroup(g.root, _units(graph, g.root, full), g.layers))
    return found


def _trial(scout: ChannelGraph, group: ChannelGroup, example: Inputs, generator: torch.Generator) -> str:
    """Cut a random half of the units out of the scout; why that is wrong, '' when it is right."""
    picked = torch.randperm(len(group.units), generator=generator)[: len(group.units) // 2].tolist()
    return cut(scout, group.root, [i for u in picked for i in group.units[u]], example, must_show=True)


def score(graph: ChannelGraph, group: ChannelGroup, *, kind: str, taylor: Mapping[str, Tensor]) -> Tensor:
    """(number of units,) importance of the group's units, relative to their mean; empty when nothing measures it.

    `kind` is magnitude, bn_scale or taylor; for the last, `taylor` holds the scores (C,) of every weighted layer.
    """
    members: list[tuple[Tensor, Sequence[int]]] = []
    width = graph.width(group.root)
    for item in graph.group(group.root, range(width)):
        module = item.dep.target.module
        if kind == "bn_scale":
            measured = isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine
            values = importance.bn_scale(module.weight) if measured else None
        elif isinstance(module, WEIGHTED) and graph.narrows(item.dep):
            dim = channel_dim(module)
            values = taylor[graph.paths[module]] if kind == "taylor" else importance.magnitude(module.weight, dim=dim)
        else:
            values = None
        if values is not None:
            members.append((values.detach().cpu()[torch.tensor(item.idxs)], item.root_idxs))
    if not members:
        return torch.empty(0)
    scores = importance.coupled(members, width)
    return torch.stack([scores[list(unit)].mean() for unit in group.units])
