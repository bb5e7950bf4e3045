"""Temporal convolutional network (Bai et al. 2018): causal, dilated convolutions in residual
blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class CausalBlock(nn.Module):
    """Two dilated convolutions that see the past alone, and a way around them: (n, inputs, length)
    -> (n, outputs, length).
    """

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int, dilation: int, dropout: float
    ) -> None:
        super().__init__()
        self.past = (kernel - 1) * dilation
        self.conv1 = nn.Conv1d(inputs, outputs, kernel, dilation=dilation)
        self.conv2 = nn.Conv1d(outputs, outputs, kernel, dilation=dilation)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(torch.relu(self.conv1(functional.pad(x, (self.past, 0)))))
        y = self.dropout(torch.relu(self.conv2(functional.pad(y, (self.past, 0)))))
        return torch.relu(y + self.shortcut(x))


class TCN(nn.Module):
    """`depth` causal blocks whose dilation doubles, and a linear layer on the last step.

    Takes float (n, channels, length) of any length, returns (n, outputs). The defaults are the
    paper's for sequential MNIST: an output sees the last 1 + 2 (kernel - 1) (2^depth - 1) = 3,061
    steps. For one channel and 10 outputs 66,510 parameters ("about 70K" there, with the gains of
    weight normalisation), and 65,825 multiply-accumulates for every step. The convolutions are
    plain, without weight normalisation: that is a way to train them, which petra folds away in any
    model that has it.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        *,
        filters: int = 25,
        depth: int = 8,
        kernel: int = 7,
        dropout: float = 0.05,
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                CausalBlock(
                    filters if i else channels,
                    filters,
                    kernel=kernel,
                    dilation=2**i,
                    dropout=dropout,
                )
                for i in range(depth)
            )
        )
        self.head = nn.Linear(filters, outputs)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.blocks(x)[:, :, -1])
        return found
