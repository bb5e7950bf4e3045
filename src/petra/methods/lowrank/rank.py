"""Rank rules: how many singular values of a layer to keep.

Singular values are non-negative and descending.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

GRID = 10_000  # the most units in which `allocate` counts cost
_SLACK = 1e-12  # rounding must not keep a share of 1 from being reached


def rank_by_ratio(full: int, ratio: float) -> int:
    """The share `ratio` of `full`, rounded, at least one."""
    return min(full, max(1, math.floor(ratio * full + 0.5)))


def rank_by_energy(s: Tensor, tau: float) -> int:
    """The smallest k >= 1 with sum_{i<=k} s_i^2 >= tau * sum_i s_i^2."""
    return _reaches(s.double().square(), tau)


def rank_by_absolute_sum(s: Tensor, tau: float) -> int:
    """The smallest k >= 1 with sum_{i<=k} s_i >= tau * sum_i s_i: a share of the nuclear norm.

    Keeps more than the energy rule at the same tau.
    """
    return _reaches(s.double(), tau)


def rank_by_explained_variance(s: Tensor, tau: float, variance: float) -> int:
    """The smallest k >= 1 with 1 - sum_{i>k} s_i^2 / variance >= tau: R^2 as in principal component
    analysis.

    `variance` is the sum of squared deviations from the mean of what the s belong to, at most sum_i
    s_i^2. Unlike energy, a mean that one triplet explains counts for nothing, so this keeps at
    least as much.
    """
    squares = s.double().square()
    left_out = squares.sum() - squares.cumsum(0)
    return _first(left_out <= (1 - tau) * variance + _SLACK * float(squares.sum()))


def ranks_by_quantile(spectra: Sequence[Tensor], q: float) -> list[int]:
    """For each layer, how many of its values relative to its largest are at or above the q-quantile
    of all layers'.

    Within one layer a quantile would be the ratio rule; over all of them it takes from flat spectra
    what it leaves to steep ones' tails. At least one each.
    """
    relative = [s.double() / s.double()[0].clamp(min=1e-300) for s in spectra]
    threshold = np.quantile(torch.cat(relative).cpu().numpy(), q)
    return [max(1, int((r >= threshold).sum())) for r in relative]


def allocate(
    costs: Sequence[Sequence[int]], distances: Sequence[Sequence[float]], budget: float
) -> list[int] | None:
    """One option per layer: the least total distance of those that cost at most `budget`.

    `costs[l][j]` and `distances[l][j]` belong to option j of layer l. A multiple-choice knapsack,
    solved by dynamic programming: exactly for budgets up to `GRID`, with costs rounded up to a
    GRID-th of larger ones, so that the budget is never exceeded. None if even the cheapest options
    are too expensive. Ties go to the earlier option. Cost: layers x options x GRID additions.
    """
    if sum(map(min, costs)) > budget:
        return None
    unit = max(1.0, budget / GRID)
    capacity = int(budget / unit)
    units = [np.ceil(np.asarray(c) / unit).astype(int) for c in costs]
    best = np.zeros(capacity + 1)  # least distance of the layers so far with at most so many units
    chosen = []
    for layer, distance in zip(units, distances, strict=True):
        options = np.full((len(layer), capacity + 1), np.inf)
        for j, (u, d) in enumerate(zip(layer, distance, strict=True)):
            if u <= capacity:
                options[j, u:] = best[: capacity + 1 - u] + d
        chosen.append(options.argmin(0))
        best = options.min(0)
    if not np.isfinite(best[capacity]):  # feasible, but not after rounding up
        return [int(np.argmin(c)) for c in costs]
    left = capacity
    picks = []
    for layer, choice in zip(reversed(units), reversed(chosen), strict=True):
        picks.append(int(choice[left]))
        left -= int(layer[picks[-1]])
    return picks[::-1]


def _reaches(values: Tensor, tau: float) -> int:
    total = values.cumsum(0)
    return _first(total >= tau * total[-1] * (1 - _SLACK))


def _first(reached: Tensor) -> int:
    """1 + the index of the first True."""
    return int(reached.to(torch.int8).argmax()) + 1
