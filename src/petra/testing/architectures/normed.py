"""Convolutional networks by where their norms stand and what their weights are computed from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from petra.testing.architectures.base import CLASSES, TORCH_GAIN, Problem, classifier, regressor
from petra.testing.architectures.images import IMAGE, conv_bn, head
from petra.testing.architectures.series import CHANNELS, SERIES


class PreActivation(nn.Module):
    """Norm and activation before each convolution (He et al. 2016, the second paper)."""

    def __init__(self, width: int, norm: type[nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(width), nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2, self.conv2 = norm(width), nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.relu(self.norm1(x)))
        out: Tensor = x + self.conv2(functional.relu(self.norm2(y)))
        return out


def preact_resnet() -> Problem:
    """Batch norms that no convolution can take in, and one over features before a linear layer."""
    return classifier(
        lambda: nn.Sequential(
            *(
                nn.BatchNorm2d(3),
                nn.Conv2d(3, 24, 3, padding=1),
                PreActivation(24),
                nn.AvgPool2d(2),
            ),
            *(PreActivation(24), nn.BatchNorm2d(24), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            *(nn.BatchNorm1d(24), nn.Linear(24, CLASSES)),
        ),
        IMAGE,
    )


class BatchStatistics(nn.Module):
    """Convolutions normalised by the batch at hand, in evaluation too, and by each item."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = (
            nn.Conv2d(3, 24, 3, padding=1),
            nn.BatchNorm2d(24, track_running_stats=False),
        )
        self.conv2, self.norm2 = nn.Conv2d(24, 32, 3, padding=1), nn.InstanceNorm2d(32, affine=True)
        self.conv3, self.fc = nn.Conv2d(32, 32, 3, padding=1), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.norm1(self.conv1(x))), 2)
        x = functional.relu(self.norm2(self.conv2(x)))
        logits: Tensor = self.fc(functional.relu(self.conv3(x)).mean((2, 3)))
        return logits


def batch_statistics() -> Problem:
    """BatchNorm without running statistics."""
    return classifier(BatchStatistics, IMAGE)


class LayerNormOverAll(nn.GroupNorm):
    """GroupNorm with one group, made like a BatchNorm."""

    def __init__(self, width: int) -> None:
        super().__init__(1, width)


def single_group() -> Problem:
    """Pre-activation blocks whose norms have a single group."""
    return classifier(
        lambda: nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1),
            PreActivation(24, LayerNormOverAll),
            nn.AvgPool2d(2),
            head(24),
        ),
        IMAGE,
    )


class StandardisedConv(nn.Conv2d):
    """A convolution, filters of mean 0 and variance 1 times a gain (Qiao et al. 2019)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2)
        self.gain = nn.Parameter(torch.ones(outputs, 1, 1, 1))

    def standardised(self) -> Tensor:
        W = self.weight
        variance, mean = torch.var_mean(W, dim=(1, 2, 3), keepdim=True)
        return (W - mean) * (self.gain * torch.rsqrt((variance * W[0].numel()).clamp(min=1e-4)))

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.standardised(), self.bias, self.stride, self.padding)


class StandardisedBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (
            StandardisedConv(inputs, outputs, stride=stride),
            StandardisedConv(outputs, outputs),
        )
        self.norm1, self.norm2 = nn.GroupNorm(4, outputs), nn.GroupNorm(4, outputs)
        self.shortcut = StandardisedConv(inputs, outputs, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        return functional.relu(y + self.shortcut(x))


def standardised() -> Problem:
    """A ResNet with weight standardisation and GroupNorm."""
    return classifier(
        lambda: nn.Sequential(
            *(StandardisedConv(3, 16), nn.GroupNorm(4, 16), nn.ReLU()),
            *(StandardisedBlock(16, 24, 1), StandardisedBlock(24, 32, 2), head(32)),
        ),
        IMAGE,
        gain=1.0,
    )


class NormedBlock(nn.Module):
    """Causal convolutions under weight normalisation, cut at the end (Bai et al. 2018, as it is
    usually written).
    """

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.trim = 2 * dilation
        self.conv1 = parametrizations.weight_norm(
            nn.Conv1d(inputs, outputs, 3, padding=self.trim, dilation=dilation)
        )
        self.conv2 = parametrizations.weight_norm(
            nn.Conv1d(outputs, outputs, 3, padding=self.trim, dilation=dilation)
        )
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv1d(inputs, outputs, 1)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(functional.relu(self.conv1(x)[:, :, : -self.trim]))
        y = self.dropout(functional.relu(self.conv2(y)[:, :, : -self.trim]))
        return functional.relu(y + self.shortcut(x))


class NormedTCN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            NormedBlock(CHANNELS, 16, 1), NormedBlock(16, 24, 2), NormedBlock(24, 24, 4)
        )
        self.fc = nn.Linear(24, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.blocks(x)[:, :, -1])
        return out


def normed_tcn() -> Problem:
    """The usual temporal convolutional network: weight normalisation in every layer."""
    return regressor(NormedTCN, SERIES, 1)


def spectral() -> Problem:
    """Spectrally normalised convolutions and linear layers (Miyato et al. 2018)."""
    norm = parametrizations.spectral_norm
    return classifier(
        lambda: nn.Sequential(
            *(norm(nn.Conv2d(3, 24, 3, padding=1)), nn.LeakyReLU(0.2)),
            *(norm(nn.Conv2d(24, 32, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)),
            *(
                nn.AdaptiveAvgPool2d(2),
                nn.Flatten(),
                norm(nn.Linear(128, 48)),
                nn.ReLU(),
                nn.Linear(48, CLASSES),
            ),
        ),
        IMAGE,
        gain=TORCH_GAIN,
    )


class Autoencoder(nn.Module):
    """Down by strided convolutions, up by transposed ones: most of its arithmetic is in those."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(
            conv_bn(3, 16, stride=2), nn.ReLU(), conv_bn(16, 32, stride=2), nn.ReLU()
        )
        self.up = nn.Sequential(
            *(nn.ConvTranspose2d(32, 32, 4, 2, 1), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.ConvTranspose2d(32, 24, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(24, 2, 3, 1, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.up(self.down(x))
        return out


def autoencoder() -> Problem:
    """Transposed convolutions with and without a norm, and as the output layer."""
    return regressor(Autoencoder, IMAGE, 2, 16, 16)
