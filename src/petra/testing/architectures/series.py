"""Networks for time series: 1-D convolutions, recurrent layers, and mixtures of the two."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from petra.testing.architectures.base import CLASSES, Problem, classifier, normal, regressor

CHANNELS, LENGTH = 3, 32
SERIES = normal(CHANNELS, LENGTH)  # (n, channels, time), as convolutions want it
SEQUENCE = normal(16, 8)  # (n, time, features), as recurrent layers want it


class PlainCNN(nn.Module):
    """Flattened into the classifier, so that one channel is many of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv1d(CHANNELS, 16, 5, padding=2), nn.BatchNorm1d(16)
        self.conv2, self.bn2 = nn.Conv1d(16, 24, 3, padding=1), nn.BatchNorm1d(24)
        self.fc = nn.Linear(24 * LENGTH // 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool1d(functional.relu(self.bn1(self.conv1(x))), 2)
        x = functional.max_pool1d(functional.relu(self.bn2(self.conv2(x))), 2)
        logits: Tensor = self.fc(x.flatten(1))
        return logits


def cnn_1d() -> Problem:
    """A plain 1-D CNN that flattens into its classifier."""
    return classifier(PlainCNN, SERIES)


class Inception(nn.Module):
    """Kernels of three lengths and a pooled branch side by side (Ismail Fawaz et al. 2020)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.bottleneck = nn.Conv1d(inputs, width, 1, bias=False)
        self.branches = nn.ModuleList(
            nn.Conv1d(width, width, k, padding=k // 2, bias=False) for k in (11, 7, 3)
        )
        self.pooled = nn.Conv1d(inputs, width, 1, bias=False)
        self.bn = nn.BatchNorm1d(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.bottleneck(x)
        parts = [
            *(branch(h) for branch in self.branches),
            self.pooled(functional.max_pool1d(x, 3, 1, 1)),
        ]
        return functional.relu(self.bn(torch.cat(parts, 1)))


class InceptionTime(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first, self.second = Inception(CHANNELS, width), Inception(4 * width, width)
        self.third = Inception(4 * width, width)
        self.shortcut = nn.Sequential(
            nn.Conv1d(CHANNELS, 4 * width, 1, bias=False), nn.BatchNorm1d(4 * width)
        )
        self.fc = nn.Linear(4 * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu(self.third(self.second(self.first(x))) + self.shortcut(x))
        logits: Tensor = self.fc(h.mean(2))
        return logits


def inception_time() -> Problem:
    """Concatenated branches under one BatchNorm, a residual connection around three."""
    return classifier(InceptionTime, SERIES)


class CausalBlock(nn.Module):
    """Dilated convolutions that see the past only: padded in front by hand (Bai et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(inputs, outputs, 3, dilation=dilation)
        self.conv2 = nn.Conv1d(outputs, outputs, 3, dilation=dilation)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv1d(inputs, outputs, 1)
        self.pad = 2 * dilation

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.conv1(functional.pad(x, (self.pad, 0))))
        y = functional.relu(self.conv2(functional.pad(y, (self.pad, 0))))
        return functional.relu(y + self.shortcut(x))


class TCN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            CausalBlock(CHANNELS, 16, 1), CausalBlock(16, 24, 2), CausalBlock(24, 24, 4)
        )
        self.fc = nn.Linear(24, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.blocks(x)[:, :, -1])
        return out


def tcn() -> Problem:
    """Regression from the last step of dilated causal convolutions."""
    return regressor(TCN, SERIES, 1)


class Recurrent(nn.Module):
    """The last hidden state of a recurrent layer, classified by two linear layers."""

    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM], *, bidirectional: bool) -> None:
        super().__init__()
        self.rnn = kind(8, 24, num_layers=2, batch_first=True, bidirectional=bidirectional)
        width = 48 if bidirectional else 24
        self.hidden, self.fc = nn.Linear(width, 32), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.rnn(x)
        logits: Tensor = self.fc(functional.relu(self.hidden(out[:, -1])))
        return logits


def gru() -> Problem:
    """A two-layer bidirectional GRU."""
    return classifier(lambda: Recurrent(nn.GRU, bidirectional=True), SEQUENCE)


def lstm() -> Problem:
    """A two-layer LSTM."""
    return classifier(lambda: Recurrent(nn.LSTM, bidirectional=False), SEQUENCE)


class ConvGRU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv1d(CHANNELS, 24, 5, padding=2, bias=False), nn.BatchNorm1d(24)
        self.conv2, self.bn2 = (
            nn.Conv1d(24, 32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm1d(32),
        )
        self.rnn, self.norm = nn.GRU(32, 24, batch_first=True), nn.LayerNorm(24)
        self.fc = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x))))))
        _, state = self.rnn(x.transpose(1, 2))
        logits: Tensor = self.fc(self.norm(state[-1]))
        return logits


def conv_gru() -> Problem:
    """Convolutions that feed a GRU, whose final state is classified."""
    return classifier(ConvGRU, SERIES)
