"""Networks with recurrent layers, and every way in which others read their units."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

HIDDEN = 12


class Net(nn.Module):
    """A stack in both directions, read in every way that a network reads one."""

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.rnn = kind(5, HIDDEN, batch_first=True, **options)
        directions = 2 if self.rnn.bidirectional else 1
        self.width = directions * HIDDEN
        self.norm = nn.BatchNorm1d(self.width).eval()
        self.conv = nn.Conv1d(self.width, 7, 3, padding=1)
        self.second = nn.LSTM(self.width + 5, 6, batch_first=True)
        self.head = nn.Linear(7 + 6 + HIDDEN, 3)
        nn.init.uniform_(self.norm.running_mean)

    def forward(self, x: Tensor) -> Tensor:
        out, state = self.rnn(x)
        h = state[0] if isinstance(state, tuple) else state
        wide = self.norm(out.transpose(1, 2))
        _, (last, _) = self.second(torch.cat([x, out], 2))
        conv = self.conv(torch.relu(wide)).amax(2)
        logits: Tensor = self.head(torch.cat([conv, last[-1], h[-1].tanh()], 1))
        return logits


class PackedNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.GRU(4, 16, batch_first=True, bidirectional=True)
        self.second = nn.LSTM(32, 16, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        out, _ = self.second(self.first(packed)[0])
        steps = pad_packed_sequence(out, batch_first=True)[0]
        logits: Tensor = self.head(steps.sum(1) / lengths.unsqueeze(1))
        return logits


class Clipped(nn.Module):
    """Hardly any of what it reads comes through."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(5, 256, batch_first=True), nn.Linear(256, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.rnn(x)[1][-1].clamp(0, 0.01))
        return logits


class Lone(nn.Module):
    """A convolution and a linear layer that are called for one item at a time, without a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(5, 8, batch_first=True)
        self.conv, self.head = nn.Conv1d(8, 4, 2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out, state = self.rnn(x)
        convolved = torch.stack([self.conv(item.T).mean() for item in out])
        return torch.stack([self.head(h) for h in state[-1]]) + convolved.unsqueeze(1)


class Picky(nn.Module):
    """Its code takes only what the layer may have said."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(5, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = self.rnn(x)[1][-1]
        if state.abs().max() > 1:
            raise ValueError("a state beyond 1")
        logits: Tensor = self.head(state)
        return logits


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.norm = nn.GRU(5, 8, batch_first=True), nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.rnn(x)[0][:, -1]))
        return logits


class Returned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(5, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.rnn(x)[0][:, -1]
        logits: Tensor = self.head(out) + out
        return logits


class Viewed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(5, 8, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = self.rnn(x)[1].transpose(0, 1).reshape(-1, 16)
        logits: Tensor = self.head(state)
        return logits


class Seeded(nn.Module):
    """Its first state is a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(5, 8, batch_first=True), nn.Linear(8, 3)
        self.first = nn.Parameter(torch.randn(1, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.rnn(x, self.first.expand(1, len(x), 8).contiguous())[1][-1])
        return logits


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.twin = (nn.GRU(5, 8, batch_first=True) for _ in range(2))
        self.twin.weight_ih_l0 = self.rnn.weight_ih_l0
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        both = [layer(x)[0].mean(1) for layer in (self.rnn, self.twin)]
        logits: Tensor = self.head(torch.cat(both, 1))
        return logits
