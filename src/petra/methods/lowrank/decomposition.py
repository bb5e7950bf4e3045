"""One layer's decomposition by one method: its spectrum, and its cost and result at every rank."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from petra.methods.lowrank.activations import Moments
from petra.methods.lowrank.factorize import (
    Factors,
    cur,
    mode,
    projected,
    randomized_svd,
    svd,
    tucker2,
)
from petra.methods.lowrank.modules import factored, tucker_factored
from petra.methods.lowrank.rank import rank_by_ratio
from petra.methods.lowrank.unfold import (
    Calls,
    Cost,
    compose,
    dense_cost,
    factored_cost,
    fold,
    positions,
    unfold,
    unfolded_shape,
)

Ranks = tuple[int, ...]
"""One rank of a matrix, or those of the output and the input channels (Tucker-2)."""


@dataclass(frozen=True)
class Spectrum:
    """Singular values, descending, and the sum of squared deviations from the mean of what they
    belong to.
    """

    s: Tensor
    variance: float


class Decomposition(ABC):
    """What a stage asks of a layer's decomposition. `weight` is the layer's own, as it stores it.

    `layers` is how many take its place. One is the layer itself with the composed weight: it has
    the ranks at which several would save, and costs what it did.
    """

    def __init__(self, layer: nn.Module, how: str, calls: Calls, layers: int) -> None:
        self.layer, self.how, self.calls, self.layers = layer, how, calls, layers
        weight = layer.weight
        assert isinstance(weight, Tensor)
        self.weight = weight.detach()

    @property
    def dense(self) -> Cost:
        """Cost of the layer as it is."""
        return dense_cost(self.weight.shape, self.how, self.calls)

    @property
    @abstractmethod
    def full(self) -> Ranks:
        """The largest ranks there are."""

    @abstractmethod
    def spectra(self) -> tuple[Spectrum, ...]:
        """One for each rank."""

    @abstractmethod
    def split_cost(self, ranks: Ranks) -> Cost:
        """Cost of the factors as layers of their own."""

    @abstractmethod
    def approximation(self, ranks: Ranks) -> Tensor:
        """The dense weight at these ranks, of the layer's shape."""

    @abstractmethod
    def split(self, ranks: Ranks) -> nn.Module:
        """The factors as layers of their own."""

    def cost(self, ranks: Ranks) -> Cost:
        """Cost of `module`."""
        return self.dense if self.layers == 1 else self.split_cost(ranks)

    def module(self, ranks: Ranks) -> nn.Module:
        """What takes the layer's place."""
        if self.layers > 1:
            return self.split(ranks)
        self.layer.weight = nn.Parameter(self.approximation(ranks), requires_grad=self._trains)
        return self.layer

    def at(self, share: float) -> Ranks:
        """The ranks that are this share of the full ones."""
        return tuple(rank_by_ratio(n, share) for n in self.full)

    def saves(self, ranks: Ranks) -> bool:
        """Whether layers of these ranks would be cheaper."""
        return self.split_cost(ranks).saves_over(self.dense)

    def shares(self) -> Iterator[float]:
        """The shares 0.95, 0.9, ... 0.05 of the full ranks that save something."""
        for percent in range(95, 0, -5):
            if self.saves(self.at(percent / 100)):
                yield percent / 100

    @property
    def _trains(self) -> bool:
        weight = self.layer.weight
        return isinstance(weight, Tensor) and weight.requires_grad


class MatrixDecomposition(Decomposition):
    """Of the unfolded weight W, into two or three layers; those of one are the ranks of two."""

    @property
    def W(self) -> Tensor:
        return unfold(self.weight, self.how)

    @property
    def full(self) -> Ranks:
        return (min(unfolded_shape(self.weight.shape, self.how)),)

    @abstractmethod
    def matrices(self, k: int) -> tuple[Tensor, ...]:
        """A (m, k), for three layers M (k, k), and B (k, n), whose product is near W."""

    def spectra(self) -> tuple[Spectrum, ...]:
        return (Spectrum(torch.linalg.svdvals(self.W.double()), _variance(self.W)),)

    def split_cost(self, ranks: Ranks) -> Cost:
        return factored_cost(self.weight.shape, ranks[0], self.how, self.calls, self.layers)

    def approximation(self, ranks: Ranks) -> Tensor:
        W, *others = self.matrices(ranks[0])
        for matrix in others:
            W = W @ matrix
        return fold(W, self.weight.shape, self.how).contiguous()

    def split(self, ranks: Ranks) -> nn.Module:
        return factored(self.layer, self.matrices(ranks[0]), self.how)


class ExactSVD(MatrixDecomposition):
    @cached_property
    def _factors(self) -> Factors:
        return svd(self.W)

    def spectra(self) -> tuple[Spectrum, ...]:
        return (Spectrum(self._factors.s, _variance(self.W)),)

    def matrices(self, k: int) -> tuple[Tensor, ...]:
        return self._factors.truncate(k).split(self.layers)


class RandomizedSVD(MatrixDecomposition):
    def __init__(self, layer: nn.Module, how: str, calls: Calls, layers: int, *, seed: int) -> None:
        super().__init__(layer, how, calls, layers)
        self.seed = seed

    def matrices(self, k: int) -> tuple[Tensor, ...]:
        return randomized_svd(self.W, k, seed=self.seed).split(self.layers)


class WhitenedSVD(MatrixDecomposition):
    """Truncates the spectrum of the outputs, from their `moments`, not that of the weight."""

    def __init__(
        self, layer: nn.Module, how: str, calls: Calls, layers: int, *, moments: Moments
    ) -> None:
        super().__init__(layer, how, calls, layers)
        self.moments = moments

    @cached_property
    def _principal(self) -> tuple[Tensor, Tensor]:
        return self.moments.principal()

    def spectra(self) -> tuple[Spectrum, ...]:
        energies = self._principal[0][: self.full[0]]
        return (Spectrum(energies.sqrt(), self.moments.variance()),)

    def matrices(self, k: int) -> tuple[Tensor, ...]:
        return projected(self.W, self._principal[1][:, :k]).split(self.layers)


class CUR(MatrixDecomposition):
    def matrices(self, k: int) -> tuple[Tensor, ...]:
        C, U, R = cur(self.W, k)
        return (C, U, R) if self.layers == 3 else (C @ U, R)


class Tucker2(Decomposition):
    """Of a convolution with more than one kernel element, into pointwise, core and pointwise."""

    @property
    def full(self) -> Ranks:
        out, inside = self.weight.shape[:2]
        kernel = self.weight[0, 0].numel()
        return min(out, inside * kernel), min(inside, out * kernel)

    def spectra(self) -> tuple[Spectrum, ...]:
        modes = [mode(self.weight, dim) for dim in (0, 1)]
        found = []
        for M, n in zip(modes, self.full, strict=True):
            found.append(Spectrum(torch.linalg.svdvals(M.double())[:n], _variance(M)))
        return tuple(found)

    def split_cost(self, ranks: Ranks) -> Cost:
        r_out, r_in = self._supported(ranks)
        out, inside = self.weight.shape[:2]
        core = r_in * r_out * self.weight[0, 0].numel()
        macs = 0
        for inputs, output in self.calls:
            before, after = positions(inputs, self.weight.ndim), positions(output, self.weight.ndim)
            macs += inside * r_in * before + (core + r_out * out) * after
        return Cost(inside * r_in + core + r_out * out, macs)

    def approximation(self, ranks: Ranks) -> Tensor:
        U, G, V = tucker2(self.weight, *self._supported(ranks))
        ones = [1] * (G.ndim - 2)
        return compose((V.T.reshape(*V.T.shape, *ones), G, U.reshape(*U.shape, *ones)), "tucker")

    def split(self, ranks: Ranks) -> nn.Module:
        return tucker_factored(self.layer, *tucker2(self.weight, *self._supported(ranks)))

    def _supported(self, ranks: Ranks) -> tuple[int, int]:
        """`ranks` without what the other mode cannot support."""
        r_out, r_in = ranks
        kernel = self.weight[0, 0].numel()
        return min(r_out, r_in * kernel), min(r_in, r_out * kernel)


def _variance(W: Tensor) -> float:
    """Sum of squared deviations of W's columns from their mean: in proportion to that of outputs
    for white inputs.
    """
    return float((W.double() - W.double().mean(1, keepdim=True)).square().sum())
