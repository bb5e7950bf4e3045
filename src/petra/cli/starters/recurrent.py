"""A recurrent network for series, and its data, as petra calls them: see study.yaml.

It runs as it is, on made-up series. Replace what is marked with YOURS.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import petra

CLASSES = 3


def series() -> tuple[Tensor, Tensor]:
    """Inputs (n, steps, channels) and classes (n,): waves of three speeds, in noise.

    YOURS: your arrays, or petra.data.read_csv, read_ucr, read_ts. Series of different length are
    given as petra.ragged(list_of_arrays, labels, padding=petra.Padding(lengths="lengths")).
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (2000,), generator=generator)
    steps = torch.arange(40.0)[None, :, None]
    phase = 2 * torch.pi * torch.rand(len(labels), 1, 2, generator=generator)
    waves = torch.sin(0.25 * (1 + labels[:, None, None]) * steps + phase)
    return waves + 0.5 * torch.randn(len(labels), 40, 2, generator=generator), labels


def parts() -> Any:
    """Train, val and test, always the same. YOURS: your own three splits, where you have them."""
    inputs, labels = series()
    return petra.data.split(inputs, labels, stratify=labels)


def task() -> petra.Task:
    """What the network is for. Data loaders and datasets of (input, label) do as well."""
    return petra.classification(*parts())


class Network(nn.Module):
    """YOURS: any nn.Module with GRU, LSTM or RNN layers that returns a score for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(2, 48, batch_first=True)
        self.head = nn.Linear(48, CLASSES)

    def forward(self, x: Tensor) -> Any:
        states, _ = self.recurrent(x)
        return self.head(states[:, -1])


def model() -> nn.Module:
    """The trained network.

    YOURS: network.load_state_dict(torch.load("weights.pt", weights_only=True)) instead of training.
    """
    torch.manual_seed(0)
    network = Network()
    inputs, labels = parts()[0]
    optimizer = torch.optim.AdamW(network.parameters(), 5e-3)
    for _ in range(6):
        for batch in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    return network.eval()
