"""Networks for time series: 1-D convolutions, recurrent layers, and mixtures of the two."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from petra.testing.architectures.base import CLASSES, Problem, classifier, normal

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
