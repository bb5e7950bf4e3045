"""Small networks over sequences, of feature vectors and of words, and tasks for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from petra.tasks.base import Task
from petra.tasks.classification import classification


class Encoder(nn.Module):
    """(n, 6, 8) features -> (n, 4) logits through two encoder layers of four heads."""

    def __init__(self, *, norm_first: bool = True) -> None:
        super().__init__()
        self.project = nn.Linear(8, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 48, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(self.project(x)).mean(1))
        return logits


class Recurrent(nn.Module):
    """(n, 6, 8) features -> (n, 4) logits: a stack of GRUs in both directions, its mean and its
    last states."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(8, 24, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(96, 4)

    def forward(self, x: Tensor) -> Tensor:
        out, state = self.rnn(x)
        last = torch.cat([state[-2], state[-1]], 1)
        logits: Tensor = self.head(torch.cat([out.mean(1), torch.relu(last)], 1))
        return logits


def recurrent_problem() -> tuple[nn.Module, Task]:
    """The network with random weights, and sequences whose label is their largest mean."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(192, 6, 8, generator=generator)
    y = x.mean(1)[:, :4].argmax(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Recurrent().eval()
    return model, classification((x[:128], y[:128]), (x[128:160], y[128:160]), (x[160:], y[160:]))


def sequence_problem() -> tuple[nn.Module, Task]:
    """The network with random weights, its layers different, and sequences whose label is their
    largest mean.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(192, 6, 8, generator=generator)
    y = x.mean(1)[:, :4].argmax(1)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = Encoder().eval()
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model, classification((x[:128], y[:128]), (x[128:160], y[128:160]), (x[160:], y[160:]))


class Text(nn.Module):
    """(n, 12) words of 400 -> (n, 3) logits: an embedding and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.up, self.head = (
            nn.Embedding(400, 16),
            nn.Linear(16, 32),
            nn.Linear(32, 3),
        )

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(functional.gelu(self.up(self.embedding(ids))).mean(1))
        return logits


def text_problem() -> tuple[nn.Module, Task, Tensor]:
    """The network with random weights, a task of random words and labels, and the words."""
    torch.manual_seed(0)
    ids, targets = torch.randint(0, 400, (64, 12)), torch.randint(0, 3, (64,))
    return Text().eval(), classification(*[(ids, targets)] * 3), ids
