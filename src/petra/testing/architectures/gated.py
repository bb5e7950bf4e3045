"""Convolutional networks in which channels meet: attention, gates that all share, shuffles."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from petra.testing.architectures.base import CLASSES, Problem, classifier, normal
from petra.testing.architectures.images import IMAGE, conv_bn, head
from petra.testing.architectures.series import CHANNELS, SERIES


class NeighbourGate(nn.Module):
    """Channel gates from a 1-D convolution along the pooled channels (ECA, 2020)."""

    def __init__(self, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3)).unsqueeze(1)
        return x * torch.sigmoid(self.conv(pooled)).transpose(1, 2).unsqueeze(3)


class ChannelAttention(nn.Module):
    """Gates from a bottleneck over pooled channels, `hidden` wide (Hu et al. 2018, linear)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.expand(functional.relu(self.reduce(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


class SpatialGate(nn.Module):
    """A gate for every pixel, from mean and maximum over channels (CBAM, Woo et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.conv(seen))


class GlobalContext(nn.Module):
    """Attention pooling over all pixels, added to all by a bottleneck (Cao et al. 2019)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.attend, self.reduce = nn.Conv2d(width, 1, 1), nn.Conv2d(width, hidden, 1)
        self.norm, self.expand = nn.LayerNorm([hidden, 1, 1]), nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.attend(x).flatten(2), -1)
        context = torch.bmm(x.flatten(2), weights.transpose(1, 2)).unsqueeze(3)
        out: Tensor = x + self.expand(functional.relu(self.norm(self.reduce(context))))
        return out


class Softened(nn.Module):
    """Features weighted by a softmax over their channels: every channel depends on all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.softmax(self.score(x), 1) * x.shape[1]


def _with(gate: nn.Module, *, width: int = 32) -> nn.Module:
    """Three convolutions around a gate."""
    return nn.Sequential(
        *(conv_bn(3, 16), nn.ReLU(), conv_bn(16, width, stride=2), nn.ReLU(), gate),
        *(conv_bn(width, 32), nn.ReLU(), head(32)),
    )


def neighbour_gate() -> Problem:
    """A convolution over channels as if they were time."""
    return classifier(lambda: _with(NeighbourGate()), IMAGE)


def wide_gate() -> Problem:
    """Channel attention over 2,048 channels."""
    return classifier(
        lambda: nn.Sequential(
            *(conv_bn(3, 16), nn.ReLU(), conv_bn(16, 2048, 1, stride=4), nn.ReLU()),
            *(NeighbourGate(5), ChannelAttention(2048, 8), SpatialGate(), head(2048)),
        ),
        IMAGE,
    )


def single_gate() -> Problem:
    """Squeeze and excitation through one hidden unit, then one gate for a whole item."""
    return classifier(lambda: _with(nn.Sequential(ChannelAttention(32, 1), SpatialGate())), IMAGE)


def cbam() -> Problem:
    """Channel gates, then spatial ones."""
    return classifier(lambda: _with(nn.Sequential(ChannelAttention(32, 8), SpatialGate())), IMAGE)


def global_context() -> Problem:
    """Attention pooling, and a softmax over channels."""
    return classifier(lambda: _with(nn.Sequential(GlobalContext(32, 8), Softened(32))), IMAGE)


class ShuffleBlock(nn.Module):
    """Half of the channels pass, half are convolved, then both are shuffled (Ma et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.body = nn.Sequential(
            *(
                conv_bn(half, half, 1),
                nn.ReLU(),
                conv_bn(half, half, groups=half),
                conv_bn(half, half, 1),
                nn.ReLU(),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, 1)
        n, c, h, w = x.shape
        joined = torch.cat([kept, self.body(changed)], 1)
        return joined.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shuffle() -> Problem:
    """Channel splits and shuffles."""
    return classifier(lambda: _with(nn.Sequential(ShuffleBlock(32), ShuffleBlock(32))), IMAGE)


class GatedConv(nn.Module):
    """A causal convolution whose output is half values, half gates (Dauphin et al. 2017)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv, self.pad = nn.Conv1d(inputs, 2 * outputs, 3), nn.ConstantPad1d((2, 0), 0.0)
        self.mix = nn.Conv1d(outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.mix(functional.glu(self.conv(self.pad(x)), 1))
        return out


class WaveNet(nn.Module):
    """Gated convolutions, the second kind by tanh and sigmoid of chunks, with residual sums."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.first, self.second = GatedConv(CHANNELS, width), GatedConv(width, width)
        self.both, self.skip = nn.Conv1d(width, 2 * width, 3, padding=1), nn.Conv1d(width, width, 1)
        self.fc = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x + self.second(x)
        value, gate = self.both(x).chunk(2, 1)
        x = x + self.skip(torch.tanh(value) * torch.sigmoid(gate))
        logits: Tensor = self.fc(x.mean(2))
        return logits


def gated_conv() -> Problem:
    """Gated linear units over time."""
    return classifier(WaveNet, SERIES)


class Mixture(nn.Module):
    """Experts weighted by a gate, all computed; `forward` takes any keywords, passes them on."""

    def __init__(self, inputs: int = 16, experts: int = 3) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, 48), nn.ReLU(), nn.Linear(48, 24))
            for _ in range(experts)
        )
        self.gate, self.fc = nn.Linear(inputs, experts), nn.Linear(24, CLASSES)

    def forward(self, **inputs: Tensor) -> Tensor:
        return self._mix(**inputs)

    def _mix(self, features: Tensor, scale: Tensor) -> Tensor:
        weights = torch.softmax(self.gate(features), -1)
        mixed = sum(
            weights[:, i : i + 1] * expert(features * scale)
            for i, expert in enumerate(self.experts)
        )
        logits: Tensor = self.fc(functional.relu(mixed))
        return logits


def mixture() -> Problem:
    """A mixture of experts called by keywords only."""
    features = normal(16)
    return classifier(
        Mixture,
        lambda generator, n: {
            "features": features(generator, n),
            "scale": features(generator, n)[:, :1] + 2,
        },
    )
