"""Residual networks for 32x32 images: those of He et al. 2016, and that of MLPerf Tiny."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from petra.core.errors import ConfigError


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; where it widens, the shortcut takes every second pixel, pads zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.pad = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.pad:
            x = functional.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad)
            )
        return torch.relu(y + x)


class CifarResNet(nn.Module):
    """ResNet of `depth` 6n + 2 on (n, 3, 32, 32) images; 16, 32 and 64 channels."""

    def __init__(self, depth: int = 20, classes: int = 10) -> None:
        super().__init__()
        if depth % 6 != 2 or depth < 8:
            raise ConfigError(f"depth: {depth}", hint="6n + 2 layers: 8, 14, 20, 32, 44, 56, 110")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, 1)
        self.layer2 = _stage(16, 32, blocks, 2)
        self.layer3 = _stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


class TinyResNet8(nn.Module):
    """The image-classification network of MLPerf Tiny (Banbury et al. 2021): three residual blocks,
    16 to 64 channels.

    Takes raw pixels, 0 to 255, (n, 3, 32, 32). Convolutions have biases; layers are numbered as in
    the Keras original, whose 'same' padding puts the odd pixel of a stride-2 convolution at the
    right and bottom.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.ModuleList(
            [
                nn.Conv2d(3, 16, 3, 1, 1),
                *(nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(16, 16, 3, 1, 1)),
                *(nn.Conv2d(16, 32, 3, 2), nn.Conv2d(32, 32, 3, 1, 1), nn.Conv2d(16, 32, 1, 2)),
                *(nn.Conv2d(32, 64, 3, 2), nn.Conv2d(64, 64, 3, 1, 1), nn.Conv2d(32, 64, 1, 2)),
            ]
        )
        self.bn = nn.ModuleList([nn.BatchNorm2d(c, eps=1e-3) for c in (16, 16, 16, 32, 32, 64, 64)])
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        conv, bn = self.conv, self.bn
        x = torch.relu(bn[0](conv[0](x)))
        x = torch.relu(x + bn[2](conv[2](torch.relu(bn[1](conv[1](x))))))
        for first, norm in ((3, 3), (6, 5)):
            y = torch.relu(bn[norm](conv[first](functional.pad(x, (0, 1, 0, 1)))))
            x = torch.relu(bn[norm + 1](conv[first + 1](y)) + conv[first + 2](x))
        logits: Tensor = self.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits
