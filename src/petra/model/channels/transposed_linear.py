"""How Torch-Pruning cuts Hugging Face's `Conv1D`, a kind of layer that it does not know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn


class TransposedLinearPruner:
    """Teaches Torch-Pruning to cut Hugging Face's `Conv1D`, whose weight is (inputs, outputs)."""

    pruning_dim = -1  # set by Torch-Pruning, without meaning here

    def prune_out_channels(self, layer: Any, channels: Sequence[int]) -> Any:
        keep = _others(channels, self.get_out_channels(layer))
        layer.weight = nn.Parameter(layer.weight.detach()[:, keep])
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias.detach()[keep])
        layer.nf = len(keep)
        return layer

    def prune_in_channels(self, layer: Any, channels: Sequence[int]) -> Any:
        keep = _others(channels, self.get_in_channels(layer))
        layer.weight = nn.Parameter(layer.weight.detach()[keep])
        layer.nx = len(keep)
        return layer

    def get_out_channels(self, layer: Any) -> int:
        return int(layer.weight.shape[1])

    def get_in_channels(self, layer: Any) -> int:
        return int(layer.weight.shape[0])


def _others(channels: Sequence[int], width: int) -> list[int]:
    gone = set(channels)
    return [c for c in range(width) if c not in gone]
