"""LSTM-FCN (Karim et al. 2018): a convolutional network beside a small LSTM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

KERNELS = (7, 5, 3)
"""The paper's first is 8; an odd one is padded alike on both sides. See `inception_time.KERNELS`.
"""


class LSTMFCN(nn.Module):
    """Three convolutions and their mean over time (the FCN of Wang et al. 2017), and an LSTM over
    the series with its dimensions shuffled: every channel is one step of `length` features, so that
    a univariate series is seen at once.

    Takes float (n, channels, length), returns (n, outputs). `cells` is 8 in the paper for most sets
    (it tries 64 and 128), of which it drops 80% in training. For one channel of 140 steps and 5
    outputs 269,549 parameters, 264,064 of them in the FCN (264,704 with an even kernel, and biases
    in front of the batch norms), and 36.8 million multiply-accumulates.
    """

    def __init__(
        self, channels: int, length: int, outputs: int, *, cells: int = 8, dropout: float = 0.8
    ) -> None:
        super().__init__()
        widths = (channels, 128, 256, 128)
        self.fcn = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv1d(widths[i], widths[i + 1], kernel, padding=kernel // 2, bias=False),
                    nn.BatchNorm1d(widths[i + 1]),
                    nn.ReLU(),
                )
                for i, kernel in enumerate(KERNELS)
            )
        )
        self.lstm = nn.LSTM(length, cells, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1] + cells, outputs)

    def forward(self, x: Tensor) -> Tensor:
        _, (state, _) = self.lstm(x)
        found: Tensor = self.head(torch.cat([self.fcn(x).mean(2), self.dropout(state[-1])], 1))
        return found
