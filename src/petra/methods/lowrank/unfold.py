"""How a layer's weight is seen as a matrix W (m, n), outputs by inputs, and how factors of W become
weights of layers.

All on tensors and shapes; nothing here knows a module. `how` is one of `UNFOLDINGS`, `shape` that
of the weight as its layer stores it. y = W x = A (M (B x)): the first layer to run comes from B,
the last from A.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Calls = Sequence[tuple[torch.Size, torch.Size]]
"""(input, output) shapes of every call of a layer, batch first."""

UNFOLDINGS = ("channel", "spatial", "transposed", "flipped", "lookup")
"""channel: linear (out, in), which is W itself, and convolution (out, in, *kernel) as (out, in *
kernel): a convolution
    to r channels, then a pointwise one (Denton et al. 2014, Zhang et al. 2016).
spatial: convolution as (out * kh, in * kw): a (1, kw), then a (kh, 1) convolution (Jaderberg et al.
2014, Tai et al.
    2016). One-dimensional kernels count as (k, 1): a pointwise convolution, then one of length k.
    Linear as above. Three-dimensional kernels have no such split: stages unfold them by channel.
transposed: transposed convolution (in, out, *kernel) as (out * kernel, in): a pointwise
convolution, then a transposed
    one.
flipped: linear layers that store (in, out). lookup: embeddings (entries, out), which are linear
layers of one-hot inputs: a thinner table, then a linear layer.
"""

MARGIN = 0.05
"""What a replacement must at least save of weights and of multiply-accumulates: every layer more is
a kernel to start and an activation to write, which smaller savings do not pay for.
"""


def unfold(weight: Tensor, how: str) -> Tensor:
    """W (m, n)."""
    if how in ("flipped", "lookup"):
        return weight.T
    if how == "transposed":
        return weight.flatten(1).T
    if weight.ndim == 2 or how == "channel":
        return weight.flatten(1)
    out, inside, kh, kw = _as_2d(weight).shape
    return _as_2d(weight).permute(0, 2, 1, 3).reshape(out * kh, inside * kw)


def fold(W: Tensor, shape: torch.Size, how: str) -> Tensor:
    """Inverse of `unfold`: the weight of `shape` that unfolds to W."""
    if how in ("flipped", "lookup", "transposed"):
        return W.T.reshape(shape)
    if len(shape) == 2 or how == "channel":
        return W.reshape(shape)
    out, inside, kh, kw = (*shape, 1) if len(shape) == 3 else shape
    return W.reshape(out, kh, inside, kw).permute(0, 2, 1, 3).reshape(shape)


def unfolded_shape(shape: torch.Size, how: str) -> tuple[int, int]:
    """(m, n) of `unfold`."""
    if how in ("flipped", "lookup", "transposed"):
        return math.prod(shape[1:]), shape[0]
    if len(shape) == 2 or how == "channel":
        return shape[0], math.prod(shape[1:])
    return shape[0] * shape[2], shape[1] * (shape[3] if len(shape) == 4 else 1)


def fold_factors(matrices: Sequence[Tensor], shape: torch.Size, how: str) -> tuple[Tensor, ...]:
    """Weights of the layers that replace one, the first to run first.

    `matrices` are A (m, r) and B (r, n), or A, M (r, r) and B, whose product is the unfolding of a
    weight of `shape`.
    """
    A, *middle, B = matrices
    r = len(B)
    ones = [1] * (len(shape) - 2)
    M = tuple(m.reshape(*m.shape, *ones) for m in middle)
    if how == "lookup":
        return B.T, *M, A
    if len(shape) == 2:
        return B, *M, A
    if how == "transposed":
        return B.reshape(r, -1, *ones), *M, A.T.reshape(r, *shape[1:])
    out, inside, *kernel = shape
    if how == "channel":
        return B.reshape(r, inside, *kernel), *M, A.reshape(out, r, *ones)
    if len(kernel) == 1:
        return B.reshape(r, inside, 1), *M, A.reshape(out, kernel[0], r).permute(0, 2, 1)
    kh, kw = kernel
    return B.reshape(r, inside, 1, kw), *M, A.reshape(out, kh, r).permute(0, 2, 1).unsqueeze(3)


def compose(weights: Sequence[Tensor], how: str) -> Tensor:
    """The one weight that does what layers with `weights` do in turn: `fold_factors` undone.

    Also for Tucker-2, where `how` is "tucker" and the weights are pointwise, core, pointwise.
    """
    shape: tuple[int, ...]
    first, *middle, last = weights
    if how == "tucker":
        core = torch.einsum("or,rs...,si->oi...", last.flatten(1), middle[0], first.flatten(1))
        return core.contiguous()
    if how == "transposed":
        A = last.flatten(1).T
        shape = (first.shape[1], *last.shape[1:])
    elif how == "spatial" and last.ndim > 2:
        A = last.transpose(1, 2).flatten(2).reshape(len(last) * last.shape[2], -1)
        shape = (len(last), first.shape[1], last.shape[2], *first.shape[3:])
    else:
        A = last.flatten(1)
        shape = (len(last), *first.shape[1:])
    B = first.T if how == "lookup" else first.flatten(1)
    W = A
    for M in middle:
        W = W @ M.flatten(1)
    W = W @ B
    return fold(
        W, torch.Size(W.shape[::-1]) if how in ("flipped", "lookup") else torch.Size(shape), how
    )


@dataclass(frozen=True)
class Cost:
    """Weights (biases are the same and left out) and multiply-accumulates for one item."""

    params: int
    macs: int

    def saves_over(self, dense: Cost) -> bool:
        """Whether this is cheaper than `dense` by at least `MARGIN` in both; in weights alone where
        `dense` multiplies nothing, as a lookup.
        """
        most = 1 - MARGIN
        return self.params <= most * dense.params and (
            dense.macs == 0 or self.macs <= most * dense.macs
        )


def dense_cost(shape: torch.Size, how: str, calls: Calls) -> Cost:
    """Cost of the layer itself."""
    weights = math.prod(shape)
    if how == "lookup":
        return Cost(weights, 0)
    return Cost(
        weights, sum(weights * positions(seen, len(shape)) for seen in _applied_at(how, calls))
    )


def factored_cost(shape: torch.Size, k: int, how: str, calls: Calls, layers: int = 2) -> Cost:
    """Cost of the two or three layers that replace it at rank `k`.

    The first layers of a spatial split run before the vertical stride, on all rows of the input.
    """
    m, n = unfolded_shape(shape, how)
    middle = k * k if layers == 3 else 0
    macs = 0
    for (inputs, _), seen in zip(calls, _applied_at(how, calls), strict=True):
        after = before = positions(seen, len(shape))
        if len(shape) > 2 and how == "spatial":
            before = after // seen[2] * inputs[2]
        macs += (0 if how == "lookup" else k * n * before) + middle * before + k * m * after
    return Cost(k * (m + n) + middle, macs)


def positions(shape: torch.Size, ndim: int) -> int:
    """How often a weight of `ndim` dimensions is applied in one item of an activation of `shape`:
    pixels of a convolution, rows of a linear layer.
    """
    return math.prod(shape[1:-1] if ndim == 2 else shape[2:])


def _applied_at(how: str, calls: Calls) -> list[torch.Size]:
    """The activation of each call that has one position per application of the weight."""
    return [inputs if how == "transposed" else output for inputs, output in calls]


def _as_2d(weight: Tensor) -> Tensor:
    return weight.unsqueeze(3) if weight.ndim == 3 else weight
