"""Recurrences written by hand: loops over cells, time-major layers, and state spaces."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from petra.testing.architectures.base import CLASSES, Problem, classifier, normal

STEPS, FEATURES = 8, 8
SEQUENCE = normal(STEPS, FEATURES)


class CellLoop(nn.Module):
    """A projection, a cell applied at every step, and a classifier of the last state."""

    def __init__(
        self, cell: type[nn.LSTMCell] | type[nn.GRUCell] | type[nn.RNNCell], width: int = 32
    ) -> None:
        super().__init__()
        self.project, self.cell = nn.Linear(FEATURES, width), cell(width, width)
        self.hidden, self.fc = nn.Linear(width, 32), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.project(x))
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        last = state[0] if isinstance(state, tuple) else state
        logits: Tensor = self.fc(functional.relu(self.hidden(last)))
        return logits


def lstm_cells() -> Problem:
    """A loop over an LSTMCell."""
    return classifier(lambda: CellLoop(nn.LSTMCell), SEQUENCE)


def gru_cells() -> Problem:
    """A loop over a GRUCell."""
    return classifier(lambda: CellLoop(nn.GRUCell), SEQUENCE)


class HandWritten(nn.Module):
    """A gated recurrence of linear layers (a minimal gated unit), weights read at every step."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.gates, self.proposal = (
            nn.Linear(FEATURES + width, width),
            nn.Linear(FEATURES + width, width),
        )
        self.width, self.fc = width, nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], self.width)
        for t in range(x.shape[1]):
            step = x[:, t]
            z = torch.sigmoid(self.gates(torch.cat([step, h], 1)))
            h = (1 - z) * h + z * torch.tanh(self.proposal(torch.cat([step, z * h], 1)))
        logits: Tensor = self.fc(h)
        return logits


def hand_written_cell() -> Problem:
    """A recurrent cell of linear layers, called once for every step."""
    return classifier(HandWritten, SEQUENCE)


class TimeMajor(nn.Module):
    """An LSTM that wants time first, between two linear layers that do not care."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.project, self.rnn = nn.Linear(FEATURES, width), nn.LSTM(width, width)
        self.norm, self.hidden, self.fc = (
            nn.LayerNorm(width),
            nn.Linear(width, 32),
            nn.Linear(32, CLASSES),
        )

    def forward(self, x: Tensor) -> Tensor:
        steps = functional.relu(self.project(x.transpose(0, 1)))
        out, _ = self.rnn(steps)
        logits: Tensor = self.fc(functional.relu(self.hidden(self.norm(out[-1]))))
        return logits


def time_major() -> Problem:
    """A recurrent layer with time before the batch."""
    return classifier(TimeMajor, SEQUENCE)


class StateSpace(nn.Module):
    """A selective state space (Gu & Dao 2023, "Mamba"): gated halves, a causal depthwise
    convolution, and a scan.
    """

    def __init__(self, width: int = 24, states: int = 4) -> None:
        super().__init__()
        self.norm, self.split = nn.RMSNorm(width), nn.Linear(width, 4 * width, bias=False)
        self.conv = nn.Conv1d(2 * width, 2 * width, 3, padding=2, groups=2 * width)
        self.select, self.step = nn.Linear(2 * width, 2 * states + 8), nn.Linear(8, 2 * width)
        self.log_decay = nn.Parameter(torch.log(torch.arange(1.0, states + 1)).repeat(2 * width, 1))
        self.skip, self.merge = (
            nn.Parameter(torch.ones(2 * width)),
            nn.Linear(2 * width, width, bias=False),
        )
        self.states = states

    def forward(self, x: Tensor) -> Tensor:
        values, gate = self.split(self.norm(x)).chunk(2, -1)
        values = functional.silu(
            self.conv(values.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)
        )
        delta, into, out_of = self.select(values).split([8, self.states, self.states], -1)
        delta = functional.softplus(self.step(delta))
        decay = torch.exp(-delta.unsqueeze(-1) * torch.exp(self.log_decay))
        driven = (delta * values).unsqueeze(-1) * into.unsqueeze(2)
        state, seen = torch.zeros_like(driven[:, 0]), []
        for t in range(STEPS):
            state = decay[:, t] * state + driven[:, t]
            seen.append((state * out_of[:, t, None]).sum(-1))
        y = torch.stack(seen, 1) + self.skip * values
        out: Tensor = x + self.merge(y * functional.silu(gate))
        return out


def state_space() -> Problem:
    """Two selective state-space blocks."""
    return classifier(
        lambda: nn.Sequential(
            *(nn.Linear(FEATURES, 24), StateSpace(), StateSpace(), nn.RMSNorm(24)),
            *(nn.Flatten(), nn.Linear(24 * STEPS, CLASSES)),
        ),
        SEQUENCE,
    )
