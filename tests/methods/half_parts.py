"""A network with everything that half precision treats differently, and the stage applied to it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from petra.core.trial import StageTrace
from petra.methods.base import Context
from petra.methods.quantize.half import HalfPrecision
from petra.tasks.base import Task
from petra.tasks.classification import classification


class Towers(nn.Module):
    """Linear layers that fit 8-bit kernels, one that does not, two that share a weight, and codes
    beside floats.
    """

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 32)
        self.body = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))
        self.twins = nn.ModuleList([nn.Linear(32, 32), nn.Linear(32, 32)])
        self.twins[1].weight = self.twins[0].weight
        self.head = nn.Linear(32, 3)

    def forward(self, codes: Tensor, values: Tensor) -> dict[str, Tensor]:
        x = self.body(self.table(codes).mean(1) + values)
        x = self.twins[1](torch.relu(self.twins[0](x)))
        return {"logits": self.head(x), "codes": codes[:, 0]}


def towers() -> tuple[nn.Module, Task]:
    torch.manual_seed(0)
    inputs = {"codes": torch.randint(0, 10, (96, 5)), "values": torch.randn(96, 32)}
    labels = torch.randint(0, 3, (96,))
    splits = [
        ({k: v[s] for k, v in inputs.items()}, labels[s])
        for s in (slice(0, 32), slice(32, 64), slice(64, 96))
    ]
    return Towers().eval(), classification(*splits)


def halved(model: nn.Module, task: Task, **parameters: Any) -> tuple[nn.Module, StageTrace]:
    return HalfPrecision(**parameters).apply(
        copy.deepcopy(model), Context(task=task, teacher=model, seed=0)
    )
