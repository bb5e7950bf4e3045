"""Filters and groups that importance tests rank."""

from __future__ import annotations

import torch
import zoo
from torch import Tensor, nn

from petra.model.channels.groups import ChannelGroup, find_groups
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.tasks.inputs import Inputs

EXAMPLES = range(6)


def image_task(classes: int, n: int = 24) -> Task:
    def split(size: int) -> tuple[Tensor, Tensor]:
        return zoo.images(size), torch.arange(size) % classes

    return classification(split(n), split(8), split(8))


def row_task(*shape: int, n: int = 24, classes: int = 3) -> Task:
    def split(size: int) -> tuple[Tensor, Tensor]:
        return zoo.rows(size, *shape), torch.arange(size) % classes

    return classification(split(n), split(8), split(8))


def groups_of(model: nn.Module, example: Inputs) -> dict[str, ChannelGroup]:
    found, _ = find_groups(model, example, generator=torch.Generator().manual_seed(0))
    return {path: g for g in found for path in g.layers}
