"""A transformer for sequences of tokens, and its data, as petra calls them: see study.yaml.

It runs as it is, on made-up tokens. Replace what is marked with YOURS.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import petra

CLASSES, WORDS, LENGTH, WIDTH = 4, 60, 24, 64


def tokens() -> tuple[Tensor, Tensor]:
    """Inputs int64 (n, 24) and classes (n,): some of the tokens are those of a class.

    YOURS: your own token numbers. Sequences of different length are given as petra.ragged(inputs by
    name, labels, padding=petra.Padding(mask="attention_mask", mask_type="int64")).
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (2500,), generator=generator)
    words = torch.randint(0, WORDS, (len(labels), LENGTH), generator=generator)
    telling = torch.rand(words.shape, generator=generator) < 0.2
    own = 5 * labels[:, None] + torch.randint(0, 5, words.shape, generator=generator)
    return torch.where(telling, own, words), labels


def parts() -> Any:
    """Train, val and test, always the same. YOURS: your own three splits, where you have them."""
    inputs, labels = tokens()
    return petra.data.split(inputs, labels, stratify=labels)


def task() -> petra.Task:
    """What the network is for. Data loaders and datasets of (input, label) do as well."""
    return petra.classification(*parts())


class Network(nn.Module):
    """YOURS: any nn.Module that returns one score for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.places = nn.Parameter(0.02 * torch.randn(LENGTH, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.encoder(self.embed(x) + self.places).mean(1))


def model() -> nn.Module:
    """The trained network.

    YOURS: network.load_state_dict(torch.load("weights.pt", weights_only=True)) instead of training.
    """
    torch.manual_seed(0)
    network = Network()
    inputs, labels = parts()[0]
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for _ in range(6):
        for batch in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    return network.eval()
