"""A convolutional network for images, and its data, as petra calls them: see study.yaml.

It runs as it is, on made-up images. Replace what is marked with YOURS.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import petra

CLASSES = 4


def images() -> tuple[Tensor, Tensor]:
    """Inputs (n, 3, 16, 16) and classes (n,): stripes in four directions, in noise.

    YOURS: for example petra.data.read_images("folder", size=(32, 32)), a folder for each class.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (2500,), generator=generator)
    angle = labels * torch.pi / CLASSES
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    along = x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None]
    phase = 2 * torch.pi * torch.rand(len(labels), 1, 1, generator=generator)
    noise = torch.randn(len(labels), 3, 16, 16, generator=generator)
    return torch.sin(1.2 * along + phase)[:, None] + 0.8 * noise, labels


def parts() -> Any:
    """Train, val and test, always the same. YOURS: your own three splits, where you have them."""
    inputs, labels = images()
    return petra.data.split(inputs, labels, stratify=labels)


def task() -> petra.Task:
    """What the network is for. Data loaders and datasets of (input, label) do as well."""
    return petra.classification(*parts())


class Network(nn.Module):
    """YOURS: any nn.Module that returns one score for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            block(3, 16), nn.MaxPool2d(2), block(16, 32), block(32, 32), nn.MaxPool2d(2),
            block(32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Any:
        return self.layers(x)


def block(inputs: int, outputs: int) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def model() -> nn.Module:
    """The trained network.

    YOURS: network.load_state_dict(torch.load("weights.pt", weights_only=True)) instead of training.
    """
    torch.manual_seed(0)
    network = Network()
    inputs, labels = parts()[0]
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(4):
        for batch in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    return network.eval()
