"""Low-rank stages run on small networks, and what came of it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import zoo
from torch import Tensor, nn

from petra.core.trial import StageTrace
from petra.methods.base import Context
from petra.methods.lowrank.cur import CURDecompose
from petra.methods.lowrank.stage import Decompose
from petra.methods.lowrank.svd import SVDDecompose
from petra.methods.lowrank.tucker import TuckerDecompose
from petra.tasks.base import Task
from petra.tasks.classification import classification

HOW = pytest.mark.parametrize("how", ["channel", "spatial"])


STAGES: dict[str, Callable[..., Decompose]] = {
    "svd": SVDDecompose,
    "svd spatial in three": lambda **p: SVDDecompose(unfold="spatial", layers=3, **p),
    "randomized": lambda **p: SVDDecompose(decomposer="randomized", **p),
    "whitened": lambda **p: SVDDecompose(decomposer="whitened", samples=32, **p),
    "cur": CURDecompose,
    "tucker": TuckerDecompose,
}


def task_of(inputs: Callable[[int], Tensor], classes: int) -> Task:
    def split(n: int) -> tuple[Tensor, Tensor]:
        return inputs(n), torch.arange(n) % classes

    return classification(split(40), split(8), split(8))


def context_of(model: nn.Module, task: Task) -> Context:
    return Context(task=task, teacher=model, seed=0)


def run(stage: Decompose, model: nn.Module, task: Task) -> tuple[nn.Module, StageTrace]:
    return stage.apply(copy.deepcopy(model), context_of(model, task))


def features(n: int) -> Tensor:
    return zoo.rows(n, 10)


def tokens(n: int) -> Tensor:
    return torch.randint(0, 60, (n, 5), generator=torch.Generator().manual_seed(n))


def ranks_of(trace: StageTrace) -> dict[str, int]:
    return {path: record["rank"][1] for path, record in trace.details["layers"].items()}


class Volume(nn.Module):
    """3-D, transposed and 1-D convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.up = nn.Conv3d(1, 12, 3, padding=1), nn.ConvTranspose2d(12, 16, 4, 2)
        self.line, self.o = nn.Conv1d(16, 20, 5), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.up(torch.relu(self.a(x)).mean(2)))
        return self.o(torch.relu(self.line(h.flatten(2))).mean(2))
