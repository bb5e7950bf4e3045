"""A network of three residual blocks of linear layers, a task for it, and pipelines run on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petra.core.pipeline import Pipeline, StageSpec
from petra.core.rng import derive_seed
from petra.core.trial import StageTrace
from petra.execute.apply import apply_pipeline
from petra.execute.cache import PrefixCache
from petra.methods.base import Context
from petra.tasks.base import Task
from petra.tasks.classification import classification


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 64), nn.Linear(64, 16)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Net(nn.Module):
    """(n, 8) -> (n, 4) through three residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(8, 16)
        self.blocks = nn.ModuleList([Block(), Block(), Block()])
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def make_problem() -> tuple[nn.Module, Task]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(448, 8, generator=g)
    y = x[:, :4].argmax(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Net().eval()
    return model, classification((x[:256], y[:256]), (x[256:352], y[256:352]), (x[352:], y[352:]))


def run(
    problem: tuple[nn.Module, Task], *stages: StageSpec, cache: PrefixCache | None = None
) -> tuple[nn.Module, tuple[StageTrace, ...]]:
    model, task = problem

    def context(prefix: Pipeline) -> Context:
        return Context(task=task, teacher=model, seed=derive_seed(0, prefix.key))

    return apply_pipeline(
        model, Pipeline(stages), context, cache=cache, on_stage=lambda index, spec: None
    )
