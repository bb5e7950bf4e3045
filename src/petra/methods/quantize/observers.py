"""How the range of an activation is chosen from what calibration shows of it.

- minmax: the whole range seen; nothing is clipped, one outlier costs every other value its
  resolution.
- histogram: torchao's; clips to lower the squared error by a search over a histogram, ten times as
  slow as the others.
- percentile: all but the outermost 0.01% of the values on either side.
- mse: the range with the smallest squared error of rounding and clipping together (Banner et al.
  2019).

`percentile` and `mse` count values in bins as they come, so that their memory does not grow with
the data.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torchao.quantization.pt2e.observer import (
    HistogramObserver,
    MinMaxObserver,
    UniformQuantizationObserverBase,
)

BINS = 2**14
"""Bins over [-bound, bound].

At least a quarter of them is used, so that 16 or more fall on each of 256 codes.
"""

TAIL = 1e-4
"""Share of the values that `percentile` gives up on either side."""

_FRACTIONS = torch.linspace(1.0, 0.01, 100, dtype=torch.float64)


def percentile_range(counts: Tensor, edges: Tensor, tail: float) -> tuple[float, float]:
    """The narrowest range of whole bins that leaves out at most the share `tail` on either side.

    counts: (bins,) numbers of values. edges: (bins + 1,) ascending.
    """
    below = counts.cumsum(0)
    low = int(torch.searchsorted(below, tail * below[-1], right=True))
    high = int(torch.searchsorted(below, (1 - tail) * below[-1]))
    return float(edges[min(low, len(counts) - 1)]), float(edges[min(high, len(counts) - 1) + 1])


def squared_error(values: Tensor, counts: Tensor, low: Tensor, high: Tensor, levels: int) -> Tensor:
    """Sum of counts (v - Q(v))^2 by range: values, counts (n,), low <= 0 <= high (k,) -> (k,).

    Q rounds to `levels` codes of the affine scale (high - low) / (levels - 1), with zero on a code.
    """
    scale = ((high - low) / (levels - 1)).clamp_min(1e-30).unsqueeze(1)
    zero = (-low.unsqueeze(1) / scale).round()
    codes = ((values / scale).round() + zero).clamp(0, levels - 1)
    return (((codes - zero) * scale - values).square() * counts).sum(1)


def mse_range(
    values: Tensor, counts: Tensor, low: float, high: float, levels: int
) -> tuple[float, float]:
    """The range inside [low, high] with the smallest `squared_error`: values, counts (n,).

    Searched one end at a time, twice, in steps of 1% of that end. Cost: 400 passes over `values`.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    best = torch.tensor([low, high], dtype=torch.float64)
    for end, extreme in ((1, high), (0, low)) * 2:
        tried = best.repeat(len(_FRACTIONS), 1)
        tried[:, end] = extreme * _FRACTIONS
        if extreme:
            best = tried[squared_error(values, counts, tried[:, 0], tried[:, 1], levels).argmin()]
    return float(best[0]), float(best[1])


class _CountingObserver(UniformQuantizationObserverBase):  # type: ignore[misc]
    """Counts values in equal bins over [-bound, bound]. When a value is larger, the bound doubles
    and bins merge in pairs, so that no count is ever spread over bins it may not belong to.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.counts = torch.zeros(BINS, dtype=torch.float64)
        self.bound, self.low, self.high = 0.0, math.inf, -math.inf
        self._chosen: tuple[float, float] | None = None

    def forward(self, x: Tensor) -> Tensor:
        values = x.detach().float().flatten()
        if not bool(values.isfinite().all()):
            values = values[values.isfinite()]
        if values.numel():
            low, high = (float(v) for v in torch.aminmax(values))
            self.low, self.high, self._chosen = min(self.low, low), max(self.high, high), None
            largest = max(-low, high, 1e-30)
            self.bound = self.bound or largest
            while self.bound < largest:
                self._double()
            self.counts += torch.histc(values, BINS, -self.bound, self.bound).cpu()
        return x

    def _double(self) -> None:
        merged = self.counts.reshape(-1, 2).sum(1)
        self.counts = torch.zeros(BINS, dtype=torch.float64)
        self.counts[BINS // 4 : 3 * BINS // 4] = merged
        self.bound *= 2

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        if self._chosen is None and self.low <= self.high:
            low, high = self.choose(
                torch.linspace(-self.bound, self.bound, BINS + 1, dtype=torch.float64)
            )
            self._chosen = max(low, self.low), min(high, self.high)
        low, high = self._chosen or (self.low, self.high)
        scale, zero_point = self._calculate_qparams(torch.tensor(low), torch.tensor(high))
        return scale, zero_point

    @abstractmethod
    def choose(self, edges: Tensor) -> tuple[float, float]:
        """Lower and upper end of the range, from `counts` between `edges` (BINS + 1,)."""


class PercentileObserver(_CountingObserver):
    """See `percentile_range`."""

    def choose(self, edges: Tensor) -> tuple[float, float]:
        return percentile_range(self.counts, edges, TAIL)


class MseObserver(_CountingObserver):
    """See `mse_range`."""

    def choose(self, edges: Tensor) -> tuple[float, float]:
        used = self.counts > 0
        centres = (edges[:-1] + edges[1:]) / 2
        levels = self.quant_max - self.quant_min + 1
        return mse_range(centres[used], self.counts[used], self.low, self.high, levels)


OBSERVERS = {
    "minmax": MinMaxObserver,
    "histogram": HistogramObserver,
    "percentile": PercentileObserver,
    "mse": MseObserver,
}
