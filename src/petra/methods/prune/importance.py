"""How much a channel matters: a number >= 0 each, from weights, gradients or activations.

Every function takes the weights of one layer (or what the data says about them, in the same shape)
with the channels along dimension `dim`: 0 for the outputs of linear layers and convolutions, 1 for
transposed convolutions and inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

REDUCTIONS = ("sum", "mean", "max", "prod", "first")
NORMALISATIONS = ("none", "sum", "mean", "max", "gaussian")
ENTROPY_BINS = 32


def _per_filter(weight: Tensor, dim: int) -> Tensor:
    """(C, everything else) with the channel dimension `dim` first."""
    return weight.movedim(dim, 0).reshape(weight.shape[dim], -1)


# --- one layer ------------------------------------------------------------------------------------


def magnitude(weight: Tensor, *, p: float = 2.0, dim: int = 0) -> Tensor:
    """(C,) p-norm of each filter: (sum |w|^p)^(1/p); p = 0 counts the non-zeros.

    Li et al. 2017, "Pruning Filters for Efficient ConvNets" (there with p = 1).
    """
    norms: Tensor = torch.linalg.vector_norm(_per_filter(weight, dim), ord=p, dim=1)
    return norms


def bn_scale(weight: Tensor) -> Tensor:
    """(C,) |gamma| of a batch normalisation, the channel's gain.

    Liu et al. 2017, "Network Slimming".
    """
    return weight.abs()


def taylor(weight: Tensor, gradient: Tensor, *, dim: int = 0) -> Tensor:
    """(C,) first-order share of a filter in the loss L: sum over its weights of |w dL/dw|.

    Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning". The absolute value
    comes before the sum: after a batch normalisation the loss hardly depends on the length of a
    filter, so the signed sum is near zero for every filter and ranks only noise.
    """
    return _per_filter((weight * gradient).abs(), dim).sum(1)


def hessian(weight: Tensor, curvature: Tensor, *, dim: int = 0) -> Tensor:
    """(C,) second-order share of a filter: sum over its weights of w^2 h / 2, h = d2L/dw2.

    LeCun, Denker & Solla 1990, "Optimal Brain Damage": exact where the loss is quadratic with a
    diagonal Hessian and the gradient is zero. The diagonal is commonly taken from squared gradients
    (the empirical Fisher information; Liu et al. 2021, "Group Fisher Pruning").
    """
    return _per_filter(weight.square() * curvature / 2, dim).sum(1)


def lamp(weight: Tensor, *, dim: int = 0) -> Tensor:
    """(C,) squared norm of each filter over the sum of those not smaller: in (0, 1].

    Lee et al. 2021, "Layer-Adaptive Sparsity for the Magnitude-based Pruning", with filters in the
    place of single weights. Comparable between layers as it is: the largest filter of every layer
    scores 1. Of equal filters the one that comes later counts as the larger. All-zero weights score
    zero.
    """
    squared = _per_filter(weight, dim).double().square().sum(1)
    ascending, order = torch.sort(squared, stable=True)
    not_smaller = ascending.flip(0).cumsum(0).flip(0)
    scores = torch.zeros_like(squared)
    scores[order] = ascending / not_smaller.clamp_min(torch.finfo(squared.dtype).tiny)
    return scores.to(weight.dtype)


def fpgm(weight: Tensor, *, dim: int = 0) -> Tensor:
    """(C,) sum of distances of each filter to all others: small near the geometric median.

    He et al. 2019, "Filter Pruning via Geometric Median": a filter near the median is one that the
    others can replace, whatever its norm.
    """
    filters = _per_filter(weight, dim)
    exact = (  # the product form gives equal filters a distance of rounding errors
        "donot_use_mm_for_euclid_dist"
    )
    distances: Tensor = torch.cdist(filters[None], filters[None], compute_mode=exact)
    return distances[0].sum(1)


def activation_entropy(activations: Tensor, *, bins: int = ENTROPY_BINS) -> Tensor:
    """(C,) entropy, in nats, of each channel's mean activation (N, C): 0 to log(bins).

    Histogram of `bins` equal bins between the channel's least and greatest value; a channel that
    says the same for every item has none. Luo & Wu 2017, "An Entropy-based Method for CNN
    Compression".
    """
    x = activations.double()
    low, high = x.amin(0), x.amax(0)
    spread = high - low
    # The rounding errors of float32 are no message.
    constant = spread <= 1e-6 * torch.maximum(low.abs(), high.abs())
    cells = ((x - low) / spread.masked_fill(constant, 1) * bins).long().clamp(0, bins - 1)
    counts = torch.zeros(bins, x.shape[1], dtype=x.dtype, device=x.device)
    counts.scatter_add_(0, cells, torch.ones_like(x))
    entropy: Tensor = torch.special.entr(counts / len(x)).sum(0)
    return entropy.masked_fill(constant, 0).to(activations.dtype)


# --- several layers -------------------------------------------------------------------------------


def relative(scores: Tensor) -> Tensor:
    """(C,) scores divided by their mean, so that layers of different size and scale compare.

    All-zero stays zero.
    """
    mean = scores.mean()
    return scores / mean if float(mean) > 0 else torch.zeros_like(scores)


def coupled(
    members: Sequence[tuple[Tensor, Sequence[int]]], width: int, reduction: str = "mean"
) -> Tensor:
    """(width,) score of channels that several layers share: the members' relative scores, reduced
    over the members.

    Each member is its scores (k,) and the k different channels they belong to; a member may cover
    only some channels, and a channel that none covers scores zero. `reduction` is one of
    REDUCTIONS; `first` takes the first member that covers the channel.
    """
    comparable = [
        (relative(scores.detach().cpu().double()), channels) for scores, channels in members
    ]
    return reduced(comparable, width, reduction)


def reduced(members: Sequence[tuple[Tensor, Sequence[int]]], width: int, reduction: str) -> Tensor:
    """(width,) the members' scores, as for `coupled`, reduced as they are."""
    table = torch.full((len(members), width), torch.nan, dtype=torch.float64)
    for row, (scores, channels) in zip(table, members, strict=True):
        row[torch.as_tensor(channels, dtype=torch.int64)] = scores.detach().cpu().double()
    covered = ~table.isnan()
    match reduction:
        case "sum":
            total = table.nansum(0)
        case "mean":
            total = table.nansum(0) / covered.sum(0).clamp(min=1)
        case "max":
            total = table.nan_to_num(nan=-torch.inf).amax(0)
        case "prod":
            total = table.nan_to_num(nan=1.0).prod(0)
        case "first":
            total = table.gather(0, covered.int().argmax(0)[None])[0]
        case _:
            raise ValueError(f"reduction {reduction!r} is none of {', '.join(REDUCTIONS)}")
    return total.where(covered.any(0), 0.0)


def normalised(scores: Tensor, kind: str) -> Tensor:
    """(C,) non-negative scores of one group, on the scale on which groups are compared.

    `sum`, `mean` and `max` divide by that statistic, `gaussian` subtracts the mean and divides by
    the standard deviation, `none` changes nothing. The order within the group stays. Where the
    divisor is zero all become zero.
    """
    match kind:
        case "none":
            return scores
        case "gaussian":
            shifted, divisor = scores - scores.mean(), scores.std(correction=0)
        case "sum" | "mean" | "max":
            shifted, divisor = scores, getattr(scores, kind)()
        case _:
            raise ValueError(f"normalisation {kind!r} is none of {', '.join(NORMALISATIONS)}")
    return shifted / divisor if float(divisor) > 0 else torch.zeros_like(scores)
