"""Series, windows and forecasts that forecasting is tried on."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import petra
from petra.tasks.forecasting import Forecasting
from petra.testing.measures_suites import Batch

LEVELS = (0.1, 0.5, 0.9)
CHANNELS, CONTEXT, HORIZON, SEASON = 2, 24, 6, 12
G = torch.Generator().manual_seed(0)


def waves(time: int = 700) -> Tensor:
    """Two noisy seasonal series, (time, channels), the second ten times as large."""
    g, t = torch.Generator().manual_seed(0), torch.arange(time)
    season = torch.sin(2 * math.pi * t / SEASON)
    series = torch.stack([season, 10 * season.roll(3)], 1)
    return series + torch.tensor([0.2, 2.0]) * torch.randn(time, CHANNELS, generator=g)


def windows(series: Tensor) -> tuple[Tensor, Tensor]:
    """All windows: (n, channels, context), (n, channels, horizon)."""
    whole = series.unfold(0, CONTEXT + HORIZON, 1)
    return whole[..., :CONTEXT].clone(), whole[..., CONTEXT:].clone()


def parts() -> tuple[tuple[Tensor, Tensor], ...]:
    series = waves()
    return tuple(windows(series[a:b]) for a, b in ((0, 420), (420, 560), (560, 700)))


class Forecaster(nn.Module):
    """A perceptron for each channel, with a head for every quantile, or for the point alone."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.body = nn.Sequential(nn.Linear(CONTEXT, 32), nn.ReLU())
        self.head = nn.Linear(32, HORIZON * max(1, levels))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(x))
        return y.unflatten(-1, (HORIZON, self.levels)) if self.levels else y


def made(levels: tuple[float, ...]) -> Forecasting:
    more = ["mase", "rmse", "mae"] if levels else ["pinball", "rmse", "mae"]
    return petra.forecasting(*parts(), season=SEASON, quantiles=levels, metrics=more)


def forecasts(n: int = 300) -> Batch:
    """Quantile forecasts and what came."""
    target = torch.randn(n, CHANNELS, HORIZON, generator=G)
    noise = 0.3 * torch.randn(n, CHANNELS, HORIZON, len(LEVELS), generator=G)
    return {"output": target[..., None] + noise}, target
