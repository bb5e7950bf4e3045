"""A network for sequences of events, and its data, as petra calls them: see study.yaml.

It runs as it is, on made-up customers. Replace what is marked with YOURS.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import petra

KINDS = 8
PADDING = petra.Padding(mask="mask")  # the model's input that says which events are real


def customers() -> tuple[dict[str, list[np.ndarray]], np.ndarray]:
    """For each of n customers the kinds of their events, int64 from 1 (0 is the padding), and two
    numbers of each event, float32 (events, 2); and classes (n,).

    YOURS: petra.data.event_sequences(frame, item=, time=, categories=, numeric=, label=) makes
    them of a table with an event a row.
    """
    random = np.random.default_rng(0)
    kinds, numbers, labels = [], [], np.arange(1500) % 2
    for label in labels:
        length = int(random.integers(5, 30))
        often = np.ones(KINDS) / KINDS
        often[:2] += np.array([0.1, -0.1]) if label else np.array([-0.1, 0.1])
        kinds.append(1 + random.choice(KINDS, length, p=often))
        numbers.append(random.normal(0.4 * label, 1, (length, 2)).astype(np.float32))
    return {"kind": kinds, "numeric": numbers}, labels


def parts() -> Any:
    """Train, val and test, always the same: each customer is in one of them."""
    inputs, labels = customers()
    split = petra.data.split(inputs, labels, stratify=labels)
    return tuple(petra.ragged(part, target, padding=PADDING) for part, target in split)


def task() -> petra.Task:
    """What the network is for. Where one class is rare, say what counts: metric="roc_auc"."""
    return petra.classification(*parts())


class Network(nn.Module):
    """YOURS: any nn.Module that takes these inputs by name and returns a score for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(KINDS + 1, 16, padding_idx=0)
        self.body = nn.Sequential(nn.Linear(18, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.head = nn.Linear(64, 2)

    def forward(self, kind: Tensor, numeric: Tensor, mask: Tensor) -> Any:
        x = self.body(torch.cat([self.embed(kind), numeric], -1)) * mask.unsqueeze(-1)
        return self.head(x.sum(1) / mask.sum(1, keepdim=True))


def model() -> nn.Module:
    """The trained network.

    YOURS: network.load_state_dict(torch.load("weights.pt", weights_only=True)) instead of training.
    """
    torch.manual_seed(0)
    network, train = Network(), parts()[0]
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(6):
        for batch in torch.randperm(len(train)).split(64):
            inputs, labels = train.take(batch)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(**inputs), torch.as_tensor(labels)).backward()
            optimizer.step()
    return network.eval()
