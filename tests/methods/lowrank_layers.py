"""Layers of every kind that a decomposition treats, and what their calls cost."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

HOW = pytest.mark.parametrize("how", ["channel", "spatial"])


def flipped_linear() -> nn.Module:
    return pytest.importorskip("transformers.pytorch_utils").Conv1D(5, 7)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(7, 5), (7,)),
    "linear on sequences": (lambda: nn.Linear(7, 5, bias=False), (4, 7)),
    "flipped linear": (flipped_linear, (4, 7)),
    "embedding": (lambda: nn.Embedding(11, 6, padding_idx=0), ()),
    "conv": (lambda: nn.Conv2d(3, 5, 3, padding=1), (3, 8, 9)),
    "uneven conv": (
        lambda: nn.Conv2d(4, 6, (5, 2), (2, 3), (2, 1), (1, 2), bias=False),
        (4, 11, 13),
    ),
    "same padding": (lambda: nn.Conv2d(3, 5, (3, 4), padding="same", dilation=(2, 1)), (3, 8, 9)),
    "reflected": (
        lambda: nn.Conv2d(3, 5, (3, 5), padding=(1, 2), padding_mode="reflect"),
        (3, 8, 9),
    ),
    "circular": (lambda: nn.Conv2d(3, 5, 3, padding=(1, 1), padding_mode="circular"), (3, 8, 9)),
    "1-D": (lambda: nn.Conv1d(4, 6, 5, stride=2, padding=2, dilation=2), (4, 21)),
    "3-D": (lambda: nn.Conv3d(3, 6, (3, 1, 2), stride=(1, 2, 1), padding=(1, 0, 0)), (3, 5, 6, 4)),
    "transposed": (
        lambda: nn.ConvTranspose2d(4, 6, (3, 2), 2, 1, output_padding=1, dilation=(1, 2)),
        (4, 5, 6),
    ),
    "transposed 1-D": (lambda: nn.ConvTranspose1d(4, 6, 4, 3, bias=False), (4, 7)),
}


layer_case = pytest.mark.parametrize("case", list(LAYERS))


conv_case = pytest.mark.parametrize(
    "case", ["conv", "uneven conv", "same padding", "circular", "1-D", "3-D"]
)


def build(case: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    make, shape = LAYERS[case]
    layer = make()
    if isinstance(layer, nn.Embedding):
        return layer, torch.tensor([[0, 3, 10, 3], [1, 2, 0, 9]])
    return layer, torch.randn(2, *shape)


def calls_of(layer: nn.Module, x: Tensor) -> tuple[tuple[torch.Size, torch.Size], ...]:
    return ((x.shape, layer(x).shape),)
