"""Scores of a group's channels: what importance functions take, gathered from all its layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from petra.methods.prune import importance
from petra.model.channels.graph import ChannelGraph
from petra.model.channels.groups import ChannelGroup
from petra.model.channels.rows import has_weights, parts_before, rows, table_of
from petra.model.kinds import BatchNorm, is_weighted

GROUP_IMPORTANCES = ("group_magnitude", "group_taylor", "group_hessian")
IMPORTANCES = (
    "magnitude",
    "bn_scale",
    "taylor",
    "hessian",
    "lamp",
    "fpgm",
    "activation_entropy",
    "random",
    *GROUP_IMPORTANCES,
)


@dataclass(frozen=True)
class Ranking:
    """How channels are scored.

    Which members of a group an `importance` measures:

    - magnitude, taylor, hessian, lamp, fpgm: the weights that make a channel, in every layer whose
      output narrows;
    - group_magnitude, group_taylor, group_hessian: those, the weights that read it, and the gains
      of norms on the way (Fang et al. 2023, "DepGraph");
    - bn_scale: the gains of its batch norms;
    - activation_entropy: what every layer that reads the channel sees of it;
    - random: nothing, from `generator`.

    `evidence` is what `statistics.gather` found for the importance. With normalisation `none` the
    members' scores are reduced as they are, otherwise relative to each member's mean, so that large
    layers do not outvote small ones.
    """

    importance: str = "magnitude"
    p: float = 2.0
    reduction: str = "mean"
    normalisation: str = "mean"
    evidence: Mapping[str, Tensor] = field(default_factory=dict)
    generator: torch.Generator | None = None


def score(graph: ChannelGraph, group: ChannelGroup, ranking: Ranking) -> Tensor:
    """(number of units,) importance of the group's units, comparable between groups as far as
    `ranking` makes it so; empty when no member of the group can be measured.
    """
    width = graph.width(group.root)
    members: list[tuple[Tensor, Sequence[int]]]
    if ranking.importance == "random":
        members = [
            (torch.rand(width, generator=ranking.generator, dtype=torch.float64), range(width))
        ]
    else:
        members = list(_members(graph, group, ranking))
    if not members:
        return torch.empty(0)
    combine = importance.reduced if ranking.normalisation == "none" else importance.coupled
    scores = combine(members, width, ranking.reduction)
    units = torch.stack([scores[list(unit)].mean() for unit in group.units])
    return importance.normalised(units, ranking.normalisation)


def _members(
    graph: ChannelGraph, group: ChannelGroup, ranking: Ranking
) -> Iterator[tuple[Tensor, list[int]]]:
    """Scores of every member that the importance measures, and the root's channels they are of."""
    kind = ranking.importance.removeprefix("group_")
    for item in graph.group(group.root, range(graph.width(group.root))):
        module, owners = item.dep.target.module, item.root_idxs
        if None in owners or not _measured(graph, item.dep, ranking):
            continue
        path = graph.paths[module]
        if kind == "activation_entropy":
            seen = ranking.evidence[path].T[item.idxs]  # (k, N)
            channels, filters = by_owner(seen, owners)
            yield (
                importance.activation_entropy(
                    filters.reshape(len(channels), -1, seen.shape[1]).mean(1).T
                ),
                channels,
            )
            continue
        reads = graph.reads(item.dep)
        weight = module.weight.detach().cpu()
        channels, filters = by_owner(rows(module, weight, inputs=reads)[item.idxs], owners)
        data = torch.zeros(())
        if kind in ("taylor", "hessian"):
            found = ranking.evidence.get(f"{path}.weight", torch.zeros_like(weight))
            _, data = by_owner(rows(module, found, inputs=reads)[item.idxs], owners)
        yield _score(kind, filters, data, ranking.p), channels


def _measured(graph: ChannelGraph, dep: Any, ranking: Ranking) -> bool:
    module = dep.target.module
    if ranking.importance == "activation_entropy":
        return graph.reads(dep) and graph.paths[module] in ranking.evidence
    if ranking.importance == "bn_scale":
        return isinstance(module, BatchNorm) and module.weight is not None
    if (
        ranking.importance.endswith(("taylor", "hessian"))
        and f"{graph.paths.get(module)}.weight" not in ranking.evidence
    ):
        return False  # no gradient reaches it
    if ranking.importance in GROUP_IMPORTANCES:
        return has_weights(module)
    return is_weighted(module) and graph.narrows(dep)


def _score(kind: str, filters: Tensor, data: Tensor, p: float) -> Tensor:
    match kind:
        case "magnitude":
            return importance.magnitude(filters, p=p)
        case "bn_scale":
            return importance.bn_scale(filters).mean(1)
        case "taylor":
            return importance.taylor(filters, data)
        case "hessian":
            return importance.hessian(filters, data)
        case "lamp":
            return importance.lamp(filters)
        case "fpgm":
            return importance.fpgm(filters)
    raise ValueError(f"importance {kind!r} is none of {', '.join(IMPORTANCES)}")


def by_owner(parts: Tensor, owners: Sequence[int]) -> tuple[list[int], Tensor]:
    """Parts (k, m) that belong to `owners` (k,), side by side: the different owners, ascending, and
    for each a row of all its parts, filled up with zeros where others have more.

    After flattening, for one, a channel is many inputs of the linear layer that follows.
    """
    channels = sorted(set(owners))
    row = {owner: i for i, owner in enumerate(channels)}
    return channels, table_of(parts, *parts_before([row[owner] for owner in owners]), len(channels))
