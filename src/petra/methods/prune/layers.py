"""Layers whose output channels can go one by one, and Hugging Face's transposed one among them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from torch import nn

WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)


def transposed_linears() -> tuple[type[nn.Module], ...]:
    """Hugging Face's `Conv1D` (GPT-2), a linear layer whose weight is (inputs, outputs), where it can be in use."""
    library = sys.modules.get("transformers.pytorch_utils")
    return (library.Conv1D,) if library else ()


def is_weighted(module: object) -> bool:
    """Whether the module is a layer whose output channels can go one by one."""
    return isinstance(module, (*WEIGHTED, *transposed_linears()))


def channel_dim(module: nn.Module) -> int:
    """Dimension of the weight that counts output channels."""
    if isinstance(module, transposed_linears()):
        return 1
    depthwise = 1 < getattr(module, "groups", 1) == module.out_channels
    return 1 if getattr(module, "transposed", False) and not depthwise else 0


def width_of(module: Any) -> int:
    """Output channels of a weighted layer."""
    return widths(module)[1]


def widths(module: Any) -> tuple[int, int]:
    """Input and output channels of a weighted layer."""
    if type(module) in transposed_linears():
        return module.weight.shape[0], module.weight.shape[1]
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return module.in_channels, module.out_channels


class TransposedLinearPruner:
    """Teaches Torch-Pruning to cut Hugging Face's `Conv1D`, whose weight is (inputs, outputs)."""

    pruning_dim = -1  # set by Torch-Pruning, without meaning here

    def prune_out_channels(self, layer: Any, channels: Sequence[int]) -> Any:
        keep = _others(channels, self.get_out_channels(layer))
        layer.weight = nn.Parameter(layer.weight.detach()[:, keep])
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
