"""Forecasting as a task of a third party: windows of a series, quantile heads, pinball, MASE.

Everything here is a third party's: it imports petra, and petra does not know it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from petra.core.errors import DataError
from petra.core.metric import Metric, task_metric
from petra.space.declare import parameter
from petra.space.domains import Real
from petra.tasks.base import Task
from petra.tasks.data import Split
from petra.tasks.inputs import Outputs, main_output
from petra.tasks.losses import Distance, Loss, SquaredDistance
from petra.tasks.scorers import ItemScorer, Scorer

QUANTILES = (0.1, 0.5, 0.9)


def pinball(prediction: Tensor, target: Tensor, quantiles: tuple[float, ...]) -> Tensor:
    """max(q r, (q - 1) r) for residuals r = target - prediction, (n, steps, quantiles) from
    predictions of that shape and targets (n, steps) (Koenker & Bassett 1978).
    """
    q = torch.tensor(quantiles, dtype=prediction.dtype, device=prediction.device)
    residual = target.unsqueeze(-1) - prediction
    return torch.maximum(q * residual, (q - 1) * residual)


@dataclass(frozen=True)
class Pinball(Loss):
    """Mean pinball loss over steps and quantiles."""

    name: ClassVar[str] = "pinball"

    quantiles: tuple[float, ...] = QUANTILES

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        return pinball(main_output(outputs), target, self.quantiles).mean()


@dataclass(frozen=True)
class SmoothPinball(Loss):
    """Pinball loss, quadratic within `width` of a residual of zero (Aravkin et al. 2014)."""

    name: ClassVar[str] = "smooth_pinball"

    width: float = parameter(
        0.1,
        Real(0.01, 1.0, log=True),
        "residuals within it count as squares",
        limits=Real(1e-6, 1e3),
    )
    quantiles: tuple[float, ...] = QUANTILES

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        sharp = pinball(main_output(outputs), target, self.quantiles)
        return torch.where(
            sharp < self.width, sharp.square() / (2 * self.width), sharp - self.width / 2
        ).mean()


@dataclass(frozen=True)
class MASE(ItemScorer):
    """Mean absolute scaled error (Hyndman & Koehler 2006): the median forecast's error over that of
    repeating the last season, on the training part of the series.
    """

    naive_error: float
    median: int = QUANTILES.index(0.5)

    @property
    def metric(self) -> Metric:
        return task_metric("mase", title="MASE", maximize=False, digits=3)

    def items(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Tensor:
        error = (main_output(outputs)[..., self.median] - targets).abs()
        return error.mean(1) / self.naive_error


@dataclass(frozen=True)
class PinballScore(ItemScorer):
    """Mean pinball loss of an item over steps and quantiles."""

    quantiles: tuple[float, ...] = QUANTILES

    @property
    def metric(self) -> Metric:
        return task_metric("pinball", title="pinball loss", maximize=False)

    def items(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Tensor:
        return pinball(main_output(outputs), targets, self.quantiles).mean((1, 2))


@dataclass(frozen=True)
class Forecasting(Task):
    """Windows of a series: inputs (n, history), targets (n, steps), predictions (n, steps,
    quantiles).
    """

    naive_error: float = math.nan
    quantiles: tuple[float, ...] = QUANTILES

    def losses(self) -> tuple[Loss, ...]:
        return Pinball(self.quantiles), SmoothPinball(quantiles=self.quantiles)

    def distance(self) -> Distance:
        return SquaredDistance()

    def scorers(self) -> tuple[Scorer, ...]:
        return (
            MASE(self.naive_error, self.quantiles.index(0.5)),
            PinballScore(self.quantiles),
        )

    def check(self, prediction: Tensor, target: Tensor, *, where: str) -> None:
        if tuple(prediction.shape) != (*target.shape, len(self.quantiles)):
            raise DataError(
                f"{where}: the model returns shape {tuple(prediction.shape)}, targets are"
                f" {tuple(target.shape)}",
                hint=f"a forecaster returns (batch, steps, {len(self.quantiles)} quantiles)",
            )


def forecasting(series: Tensor, *, history: int, steps: int, season: int) -> Forecasting:
    """Windows of one series (time,), the first 60% for training, then 20% each, by time."""
    parts = {}
    ends = [0, int(0.6 * len(series)), int(0.8 * len(series)), len(series)]
    for name, start, end in zip(("train", "val", "test"), ends[:-1], ends[1:], strict=True):
        windows = series[start:end].unfold(0, history + steps, 1)
        pair = (windows[:, :history].clone(), windows[:, history:].clone())
        parts[name] = Split.of(pair, name=name)
    known = series[: ends[1]]
    naive = float((known[season:] - known[:-season]).abs().mean())
    return Forecasting(**parts, naive_error=naive)


class Forecaster(nn.Module):
    """A perceptron with a head for every quantile."""

    def __init__(self, history: int, steps: int, quantiles: int = len(QUANTILES)) -> None:
        super().__init__()
        self.steps, self.quantiles = steps, quantiles
        self.body = nn.Sequential(
            nn.Linear(history, 64), nn.ReLU(), nn.Linear(64, steps * quantiles)
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x).reshape(-1, self.steps, self.quantiles)
        return y


def waves(time: int = 600, *, season: int = 12, seed: int = 0) -> Tensor:
    """A noisy seasonal series (time,) with a slow swing."""
    g = torch.Generator().manual_seed(seed)
    t = torch.arange(time)
    swing = torch.sin(2 * math.pi * t / 97)
    return torch.sin(2 * math.pi * t / season) + swing + 0.2 * torch.randn(time, generator=g)
