"""A network that forecasts series, and its data, as petra calls them: see study.yaml.

It runs as it is, on a made-up series. Replace what is marked with YOURS.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import petra

CONTEXT, HORIZON, SEASON, CHANNELS = 72, 12, 24, 2


def series() -> Tensor:
    """A long series (time, channels): a daily rhythm, a slow drift and noise.

    YOURS: your own, in the order of time, for example petra.data.numbers(frame, columns).
    """
    generator = torch.Generator().manual_seed(0)
    t = torch.arange(3000.0)[:, None]
    rhythm = torch.sin(2 * torch.pi * (t + torch.tensor([0.0, 6.0])) / SEASON)
    drift = torch.sin(2 * torch.pi * t / 700)
    return rhythm + drift + 0.2 * torch.randn(len(t), CHANNELS, generator=generator)


def parts() -> Any:
    """Train, val and test, parted by time: what was, and the 12 steps that followed."""
    return petra.data.windows(series(), context=CONTEXT, horizon=HORIZON)


def task() -> petra.Task:
    """What the network is for. `season` is what the usual yardstick, repeating the last season,
    repeats: it makes the error (MASE) 1 where nothing is gained by the network.
    """
    return petra.forecasting(*parts(), season=SEASON, metric="mase", metrics=["mae"])


class Network(nn.Module):
    """YOURS: any nn.Module from (n, channels, context) to (n, channels, horizon)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(CONTEXT, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(),
            nn.Linear(128, HORIZON),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Any:
        last = x[..., -1:]
        return last + self.layers(x - last)


def model() -> nn.Module:
    """The trained network.

    YOURS: network.load_state_dict(torch.load("weights.pt", weights_only=True)) instead of training.
    """
    torch.manual_seed(0)
    network = Network()
    inputs, targets = map(torch.from_numpy, parts()[0])
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for _ in range(10):
        for batch in torch.randperm(len(targets)).split(64):
            optimizer.zero_grad()
            nn.functional.l1_loss(network(inputs[batch]), targets[batch]).backward()
            optimizer.step()
    return network.eval()
