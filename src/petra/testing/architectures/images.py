"""Convolutional networks for images and volumes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from petra.networks.resnet import CifarResNet
from petra.testing.architectures.base import CLASSES, Problem, classifier, normal, regressor

IMAGE = normal(3, 16, 16)


def conv_bn(
    inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


def head(width: int) -> nn.Sequential:
    """Global average pooling and a linear classifier."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))


def cifar_resnet() -> Problem:
    """Basic blocks; shortcuts that change width are zero-padded."""
    return classifier(lambda: CifarResNet(14, CLASSES), IMAGE)


class SqueezeExcite(nn.Module):
    """Channel gates computed from the pooled channels (Hu et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(width, width // 2, 1), nn.Conv2d(width // 2, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(
            self.expand(functional.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        )
        return x * gate


class SEBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv_bn(inputs, outputs, stride=stride), conv_bn(outputs, outputs)
        self.gate = SqueezeExcite(outputs)
        plain = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if plain else conv_bn(inputs, outputs, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.gate(self.conv2(functional.relu(self.conv1(x))))
        return functional.relu(y + self.shortcut(x))


def se_resnet() -> Problem:
    """Squeeze-and-excite gates inside residual blocks with projected shortcuts."""
    return classifier(
        lambda: nn.Sequential(
            conv_bn(3, 16),
            nn.ReLU(),
            SEBlock(16, 16, 1),
            SEBlock(16, 32, 2),
            SEBlock(32, 32, 1),
            head(32),
        ),
        IMAGE,
    )


class GroupedBlock(nn.Module):
    """A bottleneck whose middle convolution has groups (Xie et al. 2017)."""

    def __init__(self, width: int, inner: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(conv_bn(width, inner, 1), nn.ReLU()),
            *(conv_bn(inner, inner, groups=groups), nn.ReLU()),
            conv_bn(inner, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.body(x))


def resnext() -> Problem:
    """Grouped convolutions in residual bottlenecks."""
    return classifier(
        lambda: nn.Sequential(
            *(conv_bn(3, 32), nn.ReLU(), GroupedBlock(32, 32, 4), GroupedBlock(32, 32, 4)),
            *(conv_bn(32, 48, stride=2), nn.ReLU(), GroupedBlock(48, 48, 4), head(48)),
        ),
        IMAGE,
    )


def separable() -> Problem:
    """Depthwise-separable convolutions (Howard et al. 2017)."""

    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        depthwise = conv_bn(inputs, inputs, stride=stride, groups=inputs)
        return [depthwise, nn.ReLU6(), conv_bn(inputs, outputs, 1), nn.ReLU6()]

    return classifier(
        lambda: nn.Sequential(
            *(
                conv_bn(3, 16),
                nn.ReLU6(),
                *block(16, 32, 1),
                *block(32, 48, 2),
                *block(48, 64, 2),
                head(64),
            )
        ),
        IMAGE,
    )


class GroupNormBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(4, width), nn.Conv2d(width, 2 * width, 3, padding=1)
        self.norm2, self.conv2 = (
            nn.GroupNorm(8, 2 * width),
            nn.Conv2d(2 * width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.silu(self.norm1(x)))
        out: Tensor = x + self.conv2(functional.silu(self.norm2(y)))
        return out


def group_norm() -> Problem:
    """Pre-activation residual blocks with GroupNorm and SiLU."""
    return classifier(
        lambda: nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            GroupNormBlock(16),
            nn.AvgPool2d(2),
            GroupNormBlock(16),
            head(16),
        ),
        IMAGE,
    )


class DenseBlock(nn.Module):
    """Each layer reads the concatenation of all before it (Huang et al. 2017)."""

    def __init__(self, inputs: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                *(nn.BatchNorm2d(inputs + i * growth), nn.ReLU()),
                *(conv_bn(inputs + i * growth, 2 * growth, 1), nn.ReLU()),
                nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False),
            )
            for i in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


def densenet() -> Problem:
    """Concatenated features with a BatchNorm over each concatenation."""
    return classifier(
        lambda: nn.Sequential(
            *(conv_bn(3, 16), nn.ReLU(), DenseBlock(16, 12, 3)),
            *(nn.BatchNorm2d(52), nn.ReLU(), nn.Conv2d(52, 24, 1), nn.AvgPool2d(2)),
            *(DenseBlock(24, 12, 2), nn.BatchNorm2d(48), nn.ReLU(), head(48)),
        ),
        IMAGE,
    )


class UNet(nn.Module):
    """Two levels down by pooling and up by transposed convolutions, with skip connections
    (Ronneberger et al. 2015).
    """

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = (
            self._double(3, 16),
            self._double(16, 24),
            self._double(24, 32),
        )
        self.up2, self.up1 = nn.ConvTranspose2d(32, 24, 2, 2), nn.ConvTranspose2d(24, 16, 2, 2)
        self.merge2, self.merge1 = self._double(48, 24), self._double(32, 16)
        self.out = nn.Conv2d(16, 2, 1)

    @staticmethod
    def _double(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            conv_bn(inputs, outputs), nn.ReLU(), conv_bn(outputs, outputs), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(functional.max_pool2d(a, 2))
        c = self.bottom(functional.max_pool2d(b, 2))
        b = self.merge2(torch.cat([self.up2(c), b], 1))
        a = self.merge1(torch.cat([self.up1(b), a], 1))
        image: Tensor = self.out(a)
        return image


def unet() -> Problem:
    """Image to image, with transposed convolutions."""
    return regressor(UNet, IMAGE, 2, 16, 16)


class Functional(nn.Module):
    """Modules, functions of bare parameters, and a function of a module's parameters, in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = conv_bn(3, 16), nn.BatchNorm2d(24)
        self.convs = nn.Sequential(conv_bn(24, 32), nn.ReLU(), conv_bn(32, 32))
        self.kernel = nn.Parameter(torch.randn(24, 16, 3, 3) / (3 * 16 * 9) ** 0.5)
        self.weight, self.bias = (
            nn.Parameter(torch.randn(40, 32) / (3 * 32) ** 0.5),
            nn.Parameter(torch.zeros(40)),
        )
        self.read, self.fc = nn.Linear(40, 32), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        x = functional.relu(self.norm(functional.conv2d(x, self.kernel, padding=1)))
        x = functional.relu(self.convs(functional.max_pool2d(x, 2))).mean((2, 3))
        x = functional.relu(functional.linear(x, self.weight, self.bias))
        logits: Tensor = self.fc(
            functional.relu(functional.linear(x, self.read.weight, self.read.bias))
        )
        return logits


def functional_calls() -> Problem:
    """Layers that are no modules, between modules."""
    return classifier(Functional, IMAGE)


class VideoNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv3d(2, 16, 3, padding=1, bias=False), nn.BatchNorm3d(16)
        self.conv2, self.bn2 = (
            nn.Conv3d(16, 24, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm3d(24),
        )
        self.conv3, self.fc = nn.Conv3d(24, 32, 3, padding=1), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(functional.max_pool3d(x, 2))))
        logits: Tensor = self.fc(functional.relu(self.conv3(x)).mean((2, 3, 4)))
        return logits


def cnn_3d() -> Problem:
    """Convolutions over space and time."""
    return classifier(VideoNet, normal(2, 8, 8, 8))
