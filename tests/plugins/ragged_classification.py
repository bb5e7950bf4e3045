"""A task on items of different length, as a plugin: accounts whose events differ in number.

An event has a kind and an amount; an account has besides a fixed row of facts. It is `restless`
when it has many pairs of equal kinds in a row, `large` when its amounts are, `plain` otherwise. The
network is a small convolution along the events that is told by a mask where they end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import petra
from petra.core.ragged import Padding
from petra.tasks.classification import Classification
from petra.tasks.data import Split
from petra.tasks.ragged import RaggedItems, ragged

KINDS, FACTS = 6, 2
CLASSES = ("plain", "restless", "large")
PADDING = Padding(value=0, axis=0, mask="mask")


@dataclass(frozen=True)
class EventClassification(Classification):
    """Classification of accounts, its classes by name."""

    classes: tuple[str, ...] = CLASSES


class EventNet(nn.Module):
    """Logits (n, 3) of kinds (n, length) int64, amounts (n, length, 1), facts (n, 2) and a mask."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(KINDS + 1, width)
        self.amount = nn.Linear(1, width)
        self.first = nn.Conv1d(width, width, 3, padding=1)
        self.second = nn.Conv1d(width, width, 3, padding=1)
        self.hidden = nn.Linear(width + FACTS, width)
        self.head = nn.Linear(width, len(CLASSES))

    def forward(self, kinds: Tensor, amounts: Tensor, facts: Tensor, mask: Tensor) -> Tensor:
        inside = mask.unsqueeze(1).to(amounts.dtype)  # (n, 1, length)
        x = (self.embed(kinds) + self.amount(amounts)).transpose(1, 2) * inside
        x = torch.relu(self.first(x)) * inside
        x = torch.relu(self.second(x)) * inside
        mean = x.sum(2) / inside.sum(2)
        logits: Tensor = self.head(torch.relu(self.hidden(torch.cat([mean, facts], 1))))
        return logits


def accounts(n: int, *, seed: int) -> RaggedItems:
    """`n` accounts of 3 to about 100 events, most of them short."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, len(CLASSES), n)
    kinds: list[np.ndarray] = []
    amounts: list[np.ndarray] = []
    for label in labels:
        length = 3 + min(100, int(random.lognormal(2.7, 0.8)))
        row = random.integers(1, KINDS + 1, length)
        again = random.random(length) < (0.9 if label == 1 else 0.0)
        for i in np.flatnonzero(again[1:]) + 1:
            row[i] = row[i - 1]
        kinds.append(row)
        scale = 3.0 if label == 2 else 0.5
        amounts.append(random.exponential(scale, (length, 1)).astype(np.float32))
    facts = random.standard_normal((n, FACTS)).astype(np.float32)
    targets = [CLASSES[label] for label in labels]
    inputs = {"kinds": kinds, "amounts": amounts, "facts": facts}
    return ragged(inputs, targets, padding=PADDING)


def event_task(train: int = 600, val: int = 300, test: int = 300) -> petra.Task:
    sizes = {"train": train, "val": val, "test": test}
    splits = [Split.of(accounts(n, seed=i), name=name) for i, (name, n) in enumerate(sizes.items())]
    return EventClassification(*splits)
