"""All weights that go with a channel, as one row of a matrix that training can act on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from petra.model.channels.graph import ChannelGraph
from petra.model.channels.groups import ChannelGroup, find_groups
from petra.model.channels.rows import has_weights, parts_before, rows, table_of
from petra.model.surgery import differentiable
from petra.tasks.inputs import Inputs


@dataclass(frozen=True)
class _Member:
    """A module's part in a group: which of its channels (see `rows`), and where each stands (see
    `parts_before`).
    """

    module: nn.Module
    reads: bool
    channels: list[int]
    units: Tensor
    before: Tensor

    def __call__(self, width: int) -> Tensor:
        weight: Any = self.module.weight
        parts = rows(self.module, weight, inputs=self.reads)[self.channels]
        return table_of(parts, self.units, self.before, width)


@dataclass(frozen=True)
class ChannelWeights:
    """The weights of a group of channels that can be cut, read anew from the modules at every call.

    (units, k): the filters that make a unit's channels in all coupled layers, the gains of norms on
    the way, and the weights that read them (Fang et al. 2023, "DepGraph"). `layers` are those whose
    outputs would narrow.
    """

    layers: tuple[str, ...]
    width: int
    members: tuple[_Member, ...]

    def __call__(self) -> Tensor:
        return torch.cat([member(self.width) for member in self.members], dim=1)


def channel_weights(
    model: nn.Module, example: Inputs, *, generator: torch.Generator
) -> list[ChannelWeights]:
    """One for every group that `find_groups` finds, at its cost. Leaves `model` untouched.

    Raises StageRefused when the model cannot be traced.
    """
    groups, _ = find_groups(model, example, generator=generator)
    with differentiable(model):
        graph = ChannelGraph(model, example)
        return [ChannelWeights(g.layers, len(g.units), _members(graph, g)) for g in groups]


def _members(graph: ChannelGraph, group: ChannelGroup) -> tuple[_Member, ...]:
    unit_of = {channel: u for u, unit in enumerate(group.units) for channel in unit}
    members = []
    for item in graph.group(group.root, range(graph.width(group.root))):
        if not has_weights(item.dep.target.module):
            continue
        standing = parts_before([unit_of[owner] for owner in item.root_idxs])
        members.append(
            _Member(item.dep.target.module, graph.reads(item.dep), list(item.idxs), *standing)
        )
    return tuple(members)
