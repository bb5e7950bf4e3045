"""How to train: the settings, and what optimizer and learning rates they mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from petra.core.pipeline import Value
from petra.tasks.base import Task
from petra.tasks.losses import Loss


@dataclass(frozen=True)
class TrainConfig:
    """How to train, not at all with no epochs. `lr` is the peak rate; `warmup` the share of steps
    that ramp up to it; `loss` is the name of one of `task.losses()` or "default", `loss_values`
    sets those of its parameters that it has; `clip_norm` 0 turns gradient clipping off.
    """

    epochs: int
    lr: float
    optimizer: str = "sgd"
    schedule: str = "cosine"
    warmup: float = 0.05
    batch_size: int = 128
    weight_decay: float = 5e-4
    clip_norm: float = 5.0
    loss: str = "default"
    loss_values: Mapping[str, Value] = field(default_factory=dict)

    def loss_of(self, task: Task) -> Loss:
        """The loss of the task that this names."""
        return task.loss(self.loss).having(self.loss_values)


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """For the weights that require a gradient."""
    decay: list[nn.Parameter] = []
    no_decay: list[nn.Parameter] = []
    for p in model.parameters():
        if p.requires_grad:
            (no_decay if p.ndim <= 1 else decay).append(p)  # norms and biases are not shrunk
    groups = [
        {"params": decay, "weight_decay": config.weight_decay},
        {"params": no_decay, "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True)


def learning_rate_factor(step: int, total: int, *, schedule: str, warmup: float) -> float:
    """Multiplier of the peak rate at `step` of `total`.

    cosine: linear warm-up to 1, then a half cosine to 0 (Loshchilov & Hutter 2017). one_cycle: the
    same two phases by cosine from 1/25, with the peak at no less than 30% of the way (Smith & Topin
    2019).
    """
    x = step / max(1, total)
    if schedule == "one_cycle":
        peak = max(warmup, 0.3)
        if x < peak:
            return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * x / peak))
    else:
        peak = warmup
        if x < peak:
            return (step + 1) / (peak * total + 1)
    return 0.5 * (1 + math.cos(math.pi * (x - peak) / (1 - peak)))
