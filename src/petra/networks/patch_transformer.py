"""PatchTST (Nie et al. 2023): forecasts by a transformer over patches of each series by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from petra.core.errors import ConfigError
from petra.networks.attention import SelfAttention, feed_forward

EPSILON = 1e-5  # added to the variance of a window, which may be constant


@dataclass(frozen=True)
class InstanceScale:
    """Mean and deviation of every window, (n, channels, 1): reversible instance normalisation
    without gains (RevIN, Kim et al. 2022).
    """

    mean: Tensor
    deviation: Tensor

    @staticmethod
    def of(x: Tensor) -> InstanceScale:
        """That of windows (n, channels, steps)."""
        mean = x.mean(-1, keepdim=True)
        variance = (x - mean).square().mean(-1, keepdim=True)
        return InstanceScale(mean, (variance + EPSILON).sqrt())

    def normalise(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation

    def restore(self, y: Tensor) -> Tensor:
        """Inverse of `normalise`, for any number of steps."""
        return y * self.deviation + self.mean


class PatchLayer(nn.Module):
    """A transformer layer over (n, patches, width), each half followed by a batch norm, which for
    series does better than a layer norm (Zerveas et al. 2021).
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.feed_forward = feed_forward(width, hidden, dropout)
        self.norm1, self.norm2 = nn.BatchNorm1d(width), nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = _by_width(self.norm1, x + self.dropout(self.attention(x)))
        return _by_width(self.norm2, x + self.dropout(self.feed_forward(x)))


def _by_width(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """A batch norm over all patches of all items, (n, patches, width)."""
    found: Tensor = norm(x.transpose(1, 2)).transpose(1, 2)
    return found


class PatchTransformer(nn.Module):
    """The next `horizon` steps of every channel from its last `context` steps, all channels by the
    same weights and none by another's values.

    Takes float (n, channels, context) and returns (n, channels, horizon); with `quantiles`, (n,
    channels, horizon, quantiles), in their order and not kept from crossing. Windows are normalised
    by their own mean and deviation and forecasts put back on their scale inside the model. Patches
    of `patch` steps, `stride` apart, the last one filled with the last value, are embedded by one
    convolution.

    The sizes are the paper's for ETTh1 (it takes 128, 16 and 256, with dropout 0.2, for larger
    sets). For 7 channels, 336 steps of context and 96 ahead 81,728 parameters and 6.2 million
    multiply-accumulates. Left out of the authors' code: adding a layer's attention scores to the
    next one's.
    """

    def __init__(
        self,
        channels: int,
        context: int,
        horizon: int,
        *,
        quantiles: Sequence[float] = (),
        width: int = 16,
        heads: int = 4,
        hidden: int = 128,
        layers: int = 3,
        patch: int = 16,
        stride: int = 8,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        if context < patch:
            raise ConfigError(
                f"context: {context} steps are less than a patch of {patch}",
                hint="give a longer context, or a shorter patch and stride",
            )
        patches = (context - patch) // stride + 2
        self.channels, self.horizon, self.stride = channels, horizon, stride
        self.quantiles = tuple(quantiles)
        self.embed = nn.Conv1d(1, width, patch, stride)
        self.position = nn.Parameter(torch.empty(patches, width).uniform_(-0.02, 0.02))
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential(
            *(PatchLayer(width, heads, hidden, dropout) for _ in range(layers))
        )
        self.head = nn.Linear(patches * width, horizon * max(1, len(self.quantiles)))

    def forward(self, x: Tensor) -> Tensor:
        scale = InstanceScale.of(x)
        series = scale.normalise(x).reshape(-1, 1, x.shape[-1])  # (n * channels, 1, context)
        padded = functional.pad(series, (0, self.stride), mode="replicate")
        tokens = self.dropout(self.embed(padded).transpose(1, 2) + self.position)
        y = self.head(self.layers(tokens).flatten(1))
        y = scale.restore(y.reshape(-1, self.channels, y.shape[-1]))
        if not self.quantiles:
            return y
        return y.reshape(-1, self.channels, self.horizon, len(self.quantiles))
