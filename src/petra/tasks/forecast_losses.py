"""Losses and distance of quantile forecasts: predictions (b, channels, horizon, quantiles), targets
(b, channels, horizon).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from petra.space.declare import parameter
from petra.space.domains import Real
from petra.tasks.inputs import Outputs, main_output
from petra.tasks.losses import Distance, Loss
from petra.tasks.value_losses import ValueLoss

Levels = tuple[float, ...]
"""Levels q of the quantiles that a model predicts, rising, in (0, 1)."""


def pinball(prediction: Tensor, target: Tensor, levels: Levels) -> Tensor:
    """max(q r, (q - 1) r) for residuals r = target - prediction (Koenker & Bassett 1978):
    (..., quantiles) from predictions of that shape and targets (...). Its expectation is least
    where the prediction is the quantile of level q.
    """
    q = torch.tensor(levels, dtype=prediction.dtype, device=prediction.device)
    residual = target.unsqueeze(-1) - prediction
    return torch.maximum(q * residual, (q - 1) * residual)


@dataclass(frozen=True)
class Pinball(ValueLoss):
    """Mean pinball loss over items, channels, steps and quantiles."""

    name: ClassVar[str] = "pinball"

    levels: Levels

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        return pinball(main_output(outputs), target, self.levels).mean() / self.unit


@dataclass(frozen=True)
class QuantileHuber(ValueLoss):
    """|q - 1[r < 0]| h(r) / kappa with Huber's loss h (Dabney et al. 2018, equation 10): the
    pinball loss, but smooth within kappa of a residual of zero.
    """

    name: ClassVar[str] = "quantile_huber"

    levels: Levels
    kappa: float = parameter(
        0.1,
        Real(0.01, 1.0, log=True),
        "residual within which the loss is quadratic, in the unit of the losses",
        limits=Real(1e-6, 1e6),
    )

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        prediction = main_output(outputs)
        residual = (target.unsqueeze(-1) - prediction) / self.unit
        q = torch.tensor(self.levels, dtype=prediction.dtype, device=prediction.device)
        weight = torch.where(residual < 0, 1 - q, q)
        zero = torch.zeros_like(residual)
        huber = functional.huber_loss(residual, zero, reduction="none", delta=self.kappa)
        return (weight * huber).mean() / self.kappa


@dataclass(frozen=True)
class WeightedQuantile(Loss):
    """Weighted quantile loss: twice the sum of the pinball losses over the sum of |targets|, in
    the mean over quantiles (Park et al. 2022). Batches of large values count no more than others;
    of a batch of zeros it is the sum over the number of targets.
    """

    name: ClassVar[str] = "wql"

    levels: Levels

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        total = pinball(main_output(outputs), target, self.levels).mean(-1).sum()
        size = target.abs().sum()
        return 2 * total / torch.where(size > 0, size, target.numel())


@dataclass(frozen=True)
class QuantileDistance(Distance):
    """Squared 2-Wasserstein distance between the two forecasts of a step, measured in `unit`
    (`ValueLoss`), by quadrature, in the mean over items, channels and steps.

    In one dimension it is the integral of (F^-1(u) - G^-1(u))^2 over u (Villani 2003, theorem
    2.18); every quantile stands for the levels that are nearest to its own.
    """

    levels: Levels
    unit: float = 1.0

    def __call__(self, student: Outputs, teacher: Outputs) -> Tensor:
        ours, theirs = main_output(student), main_output(teacher)
        weights = torch.tensor(shares(self.levels), dtype=ours.dtype, device=ours.device)
        return ((ours - theirs).square() * weights).sum(-1).mean() / self.unit**2


def shares(levels: Levels) -> tuple[float, ...]:
    """How much of (0, 1) is nearest to each level: they add up to 1."""
    between = [(a + b) / 2 for a, b in pairwise(levels)]
    edges = [0.0, *between, 1.0]
    return tuple(b - a for a, b in pairwise(edges))
