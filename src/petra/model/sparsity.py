"""Models that come in with their weights pruned: the zeros are kept like those of a stage."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from petra.model.kinds import is_weighted
from petra.model.surgery import has_derived_weight

SPARSE = 0.1
"""Share of zeros from which a layer's weight, or a model's, is taken as pruned: trained weights are
hardly ever exactly zero.
"""


def hold_zeros(model: nn.Module) -> float:
    """Mark the sparse layers of a sparse model with `keep_zeros`, in place; the share of zeros in
    its linear and convolutional layers, 0.0 when it is not sparse.

    Layers that are zero altogether, as some are initialised, do not count. The mark is the pattern:
    "two_of_four" where half of every four weights along the inputs are zero, else "anywhere". Costs
    one pass over the weights.
    """
    layers: list[Any] = [m for m in model.modules() if is_weighted(m) and not has_derived_weight(m)]
    zeros = {i: int((m.weight == 0).sum()) for i, m in enumerate(layers)}
    sparse = [
        i for i, m in enumerate(layers) if SPARSE * m.weight.numel() <= zeros[i] < m.weight.numel()
    ]
    share = sum(zeros[i] for i in sparse) / (sum(m.weight.numel() for m in layers) or 1)
    if share < SPARSE:
        return 0.0
    for layer in (layers[i] for i in sparse):
        if not getattr(layer, "keep_zeros", False):
            layer.keep_zeros = "two_of_four" if _is_two_of_four(layer) else "anywhere"
    return share


def _is_two_of_four(layer: Any) -> bool:
    weight: Tensor = layer.weight.detach()
    along = weight.movedim(0 if getattr(layer, "transposed", False) else 1, -1)
    if not isinstance(layer, nn.Linear | nn.modules.conv._ConvNd) or along.shape[-1] % 4:
        return False
    return bool(torch.all((along.reshape(-1, 4) != 0).sum(1) <= 2))
