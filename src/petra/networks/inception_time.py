"""InceptionTime (Ismail Fawaz et al. 2020): convolutions of three lengths side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn

KERNELS = (39, 19, 9)
"""The paper's 40, 20 and 10 less one: an odd kernel is padded alike on both sides, which is one
operator everywhere, where an even one needs its input padded by a copy first.
"""


class InceptionModule(nn.Module):
    """Branches of three kernel lengths over a bottleneck, and a pooled one: (n, inputs, length) ->
    (n, 4 filters, length). A single channel has no bottleneck.
    """

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        width = filters if inputs > 1 else 1
        self.bottleneck = _conv(inputs, width, 1) if inputs > 1 else nn.Identity()
        self.branches = nn.ModuleList(_conv(width, filters, kernel) for kernel in KERNELS)
        self.pool = nn.MaxPool1d(3, stride=1, padding=1)
        self.pooled = _conv(inputs, filters, 1)
        self.norm = nn.BatchNorm1d(4 * filters)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.bottleneck(x)
        parts = [branch(narrow) for branch in self.branches]
        return torch.relu(self.norm(torch.cat([*parts, self.pooled(self.pool(x))], 1)))


class InceptionTime(nn.Module):
    """One network of the paper's ensemble of five: `depth` modules of 4 `filters` channels, a
    shortcut around every three, the mean over time, a linear layer.

    Takes float (n, channels, length) of any length, returns (n, outputs); a file of it has the one
    length that it was traced at, which torch's pooling fixes. At its defaults for one channel
    404,736 parameters besides 129 for every output (with the paper's even kernels 420,192),
    and 402,688 multiply-accumulates for every step.
    """

    def __init__(self, channels: int, outputs: int, *, filters: int = 32, depth: int = 6) -> None:
        super().__init__()
        width = 4 * filters
        self.blocks = nn.ModuleList(
            InceptionModule(width if i else channels, filters) for i in range(depth)
        )
        self.shortcuts = nn.ModuleList(
            nn.Sequential(_conv(width if i else channels, width, 1), nn.BatchNorm1d(width))
            for i in range(depth // 3)
        )
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        start = x
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i % 3 == 2:
                x = start = torch.relu(x + self.shortcuts[i // 3](start))
        found: Tensor = self.head(x.mean(2))
        return found


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Conv1d:
    return nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
