"""The kinds of layers that petra treats, each recognised here and nowhere else."""

from __future__ import annotations

from typing import Any

from torch import nn

Convolution = nn.modules.conv._ConvNd
"""The class of all convolutions, transposed ones too."""

BatchNorm = nn.modules.batchnorm._BatchNorm
"""The class of all batch norms."""

WEIGHTED = (Convolution, nn.Linear)
INTEGER_KERNELS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""Weighted layers that runtimes have integer kernels for: no transposed convolutions."""

MIXING_LAYERS = (
    *WEIGHTED,
    nn.Bilinear,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.RNNBase,
    nn.MultiheadAttention,
)
"""Layers whose output channels are each a mixture (or a choice) made by a weight."""


def is_weighted(module: object) -> bool:
    """Whether the module is a layer whose output channels can go one by one."""
    return isinstance(module, WEIGHTED) or is_transposed_linear(module)


def is_transposed_linear(module: object) -> bool:
    """Whether the module is Hugging Face's `Conv1D` (GPT-2), or written like it.

    That is a linear layer whose weight, one of its own, is (inputs, outputs).
    """
    if type(module).__name__ != "Conv1D" or not isinstance(module, nn.Module):
        return False
    weight = module._parameters.get("weight")
    return weight is not None and weight.ndim == 2 and hasattr(module, "nf")


def mixes(module: nn.Module) -> bool:
    """Whether a layer's outputs are mixtures of its inputs, unlike an embedding's."""
    embeds = isinstance(module, nn.Embedding | nn.EmbeddingBag)
    return (isinstance(module, MIXING_LAYERS) and not embeds) or is_transposed_linear(module)


def channel_dim(module: nn.Module) -> int:
    """Dimension of the weight that counts output channels."""
    if is_transposed_linear(module):
        return 1
    depthwise = 1 < getattr(module, "groups", 1) == module.out_channels
    return 1 if getattr(module, "transposed", False) and not depthwise else 0


def width_of(module: Any) -> int:
    """Output channels of a weighted layer."""
    return widths(module)[1]


def widths(module: Any) -> tuple[int, int]:
    """Input and output channels of a weighted layer."""
    if is_transposed_linear(module):
        return module.weight.shape[0], module.weight.shape[1]
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return module.in_channels, module.out_channels
