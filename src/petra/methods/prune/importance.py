"""How much a channel matters: one non-negative number per channel, from its weights or its gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def _per_filter(weight: Tensor, dim: int) -> Tensor:
    """(C, everything else) with the channel dimension `dim` first."""
    return weight.movedim(dim, 0).reshape(weight.shape[dim], -1)


def magnitude(weight: Tensor, *, p: float = 2.0, dim: int = 0) -> Tensor:
    """(C,) p-norm of each filter: (sum |w|^p)^(1/p); p = 0 counts the non-zeros.

    Li et al. 2017, "Pruning Filters for Efficient ConvNets" (there with p = 1). `dim` is the channel dimension:
    0 for linear layers and convolutions, 1 for transposed convolutions.
    """
    norms: Tensor = torch.linalg.vector_norm(_per_filter(weight, dim), ord=p, dim=1)
    return norms


def bn_scale(weight: Tensor) -> Tensor:
    """(C,) |gamma| of a batch normalisation, the channel's gain. Liu et al. 2017, "Network Slimming"."""
    return weight.abs()


def taylor(weight: Tensor, gradient: Tensor, *, dim: int = 0) -> Tensor:
    """(C,) first-order estimate of what a filter contributes to the loss L: sum over its weights of |w dL/dw|.

    Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning". The absolute value comes before the
    sum: after a batch normalisation the loss hardly depends on the length of a filter, so the signed sum is near
    zero for every filter and ranks only noise.
    """
    return _per_filter((weight * gradient).abs(), dim).sum(1)


def relative(scores: Tensor) -> Tensor:
    """(C,) scores divided by their mean, so that layers of different size and scale compare. All-zero stays zero."""
    mean = scores.mean()
    return scores / mean if float(mean) > 0 else torch.zeros_like(scores)


def coupled(members: Sequence[tuple[Tensor, Sequence[int]]], width: int) -> Tensor:
    """(width,) score of channels that several layers share: the mean, over members, of their relative scores.

    Each member is its scores (k,) and the k group channels they belong to; a member may cover only some channels.
    """
    total = torch.zeros(width, dtype=torch.float64)
    count = torch.zeros(width, dtype=torch.float64)
    for scores, channels in members:
        index = torch.as_tensor(channels, dtype=torch.int64)
        total.index_add_(0, index, relative(scores.detach().cpu().double()))
        count.index_add_(0, index, torch.ones(len(index), dtype=torch.float64))
    return total / count.clamp(min=1)
