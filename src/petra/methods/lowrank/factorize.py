"""Low-rank factors of a weight: W = U diag(s) V^T, unfoldings of convolutions, rank rules, and what factors cost.

All on tensors and shapes; nothing here knows a module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """U (m, r), s (r,), V (n, r) with W = U diag(s) V^T of shape (m, n)."""

    U: Tensor
    s: Tensor
    V: Tensor

    def compose(self) -> Tensor:
        """W (m, n)."""
        return (self.U * self.s) @ self.V.T

    def truncate(self, k: int) -> Factors:
        """The first `k` triplets: the best rank-k approximation when the factors come from `svd`."""
        return Factors(self.U[:, :k], self.s[:k], self.V[:, :k])

    def split(self) -> tuple[Tensor, Tensor]:
        """A (m, r) and B (r, n) with W = A B, the singular values shared out evenly (as square roots), so that neither
        factor is much larger than the other."""
        root = self.s.clamp(min=0).sqrt()
        return self.U * root, root[:, None] * self.V.T


def svd(W: Tensor) -> Factors:
    """Thin singular value decomposition, r = min(m, n), s descending. Computed in double precision."""
    U, s, Vh = torch.linalg.svd(W.double(), full_matrices=False)
    return Factors(U.to(W.dtype), s.to(W.dtype), Vh.T.to(W.dtype))


def unfold(weight: Tensor, how: str) -> Tensor:
    """The matrix whose rank is cut.

    Linear weights (out, in) are their own matrix. For convolutions (out, in, *kernel):
    channel: (out, in * kernel), which splits into a convolution to r channels and a 1x1 convolution
    (Denton et al. 2014, Zhang et al. 2016).
    spatial: (out * kh, in * kw), which splits into a (1, kw) and a (kh, 1) convolution (Jaderberg et al. 2014,
    Tai et al. 2016). One-dimensional kernels count as (k, 1): a pointwise convolution, then one of length k.
    """
    if weight.ndim == 2 or how == "channel":
        return weight.reshape(len(weight), -1)
    out, inside, kh, kw = _as_2d(weight).shape
    return _as_2d(weight).permute(0, 2, 1, 3).reshape(out * kh, inside * kw)


def fold(W: Tensor, shape: torch.Size, how: str) -> Tensor:
    """Inverse of `unfold`: the weight of `shape` that unfolds to W."""
    if len(shape) == 2 or how == "channel":
        return W.reshape(shape)
    out, inside, kh, kw = (*shape, 1) if len(shape) == 3 else shape
    return W.reshape(out, kh, inside, kw).permute(0, 2, 1, 3).reshape(shape)


def fold_factors(A: Tensor, B: Tensor, shape: torch.Size, how: str) -> tuple[Tensor, Tensor]:
    """Weights of the two layers that replace one: the first (in -> r) from B, the second (r -> out) from A.

    `A @ B` is the unfolding of a weight of `shape`; the layers, one after the other, compute the same function.
    """
    r = len(B)
    if len(shape) == 2:
        return B, A
    out, inside, *kernel = shape
    if how == "channel":
        return B.reshape(r, inside, *kernel), A.reshape(out, r, *([1] * len(kernel)))
    if len(kernel) == 1:
        return B.reshape(r, inside, 1), A.reshape(out, kernel[0], r).permute(0, 2, 1)
    kh, kw = kernel
    return B.reshape(r, inside, 1, kw), A.reshape(out, kh, r).permute(0, 2, 1).unsqueeze(3)


def _as_2d(weight: Tensor) -> Tensor:
    return weight.unsqueeze(3) if weight.ndim == 3 else weight


def rank_by_ratio(s: Tensor, ratio: float) -> int:
    """The share `ratio` of the singular values, rounded, at least one."""
    return min(len(s), max(1, math.floor(ratio * len(s) + 0.5)))


def rank_by_energy(s: Tensor, tau: float) -> int:
    """The smallest k with sum_{i<=k} s_i^2 >= tau * sum_i s_i^2, s descending; at least one."""
    energy = s.double().square().cumsum(0)
    reached = energy >= tau * energy[-1] * (1 - 1e-12)  # rounding must not keep tau = 1 from being reached
    return int(reached.to(torch.int8).argmax()) + 1


@dataclass(frozen=True)
class Cost:
    """Weights (biases are the same on both sides and left out) and multiply-accumulates for one item."""

    params: int
    macs: int


def dense_cost(shape: torch.Size, calls: Sequence[tuple[torch.Size, torch.Size]]) -> Cost:
    """Cost of a layer with a weight of `shape`; `calls` are its (input, output) shapes, batch first."""
    weights = math.prod(shape)
    return Cost(weights, sum(weights * _positions(output, len(shape)) for _, output in calls))


def factored_cost(shape: torch.Size, k: int, how: str, calls: Sequence[tuple[torch.Size, torch.Size]]) -> Cost:
    """Cost of the two layers that replace it at rank `k`.

    The first layer of a spatial split runs before the vertical stride, on all rows of the input.
    """
    m, n = unfolded_shape(shape, how)
    macs = 0
    for inputs, output in calls:
        after = before = _positions(output, len(shape))
        if len(shape) > 2 and how == "spatial":
            before = after // output[2] * inputs[2] if len(shape) == 4 else inputs[2]
        macs += k * n * before + k * m * after
    return Cost(k * (m + n), macs)


def unfolded_shape(shape: torch.Size, how: str) -> tuple[int, int]:
    """(m, n) of `unfold`."""
    if len(shape) == 2 or how == "channel":
        return shape[0], math.prod(shape[1:])
    return shape[0] * shape[2], shape[1] * (shape[3] if len(shape) == 4 else 1)


def saves(shape: torch.Size, k: int, how: str, calls: Sequence[tuple[torch.Size, torch.Size]]) -> bool:
    """Whether rank `k` is cheaper than the dense layer both in weights and in multiply-accumulates."""
    dense, factored = dense_cost(shape, calls), factored_cost(shape, k, how, calls)
    return factored.params < dense.params and factored.macs < dense.macs


def _positions(output: torch.Size, ndim: int) -> int:
    """How often the weight is applied to compute one item's output: pixels of a convolution, rows of a linear layer."""
    inner = output[1:-1] if ndim == 2 else output[2:]
    return math.prod(inner)
