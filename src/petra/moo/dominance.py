"""Pareto dominance, with constraints after Deb et al. 2002 (NSGA-II, section VI).

Costs are minimised.
"""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

from petra.moo._arrays import as_costs, as_violations


def dominates(a: ArrayLike, b: ArrayLike, *, violations: tuple[float, float] = (0.0, 0.0)) -> bool:
    """Whether cost vector `a` (m,) dominates `b` (m,): nowhere worse and somewhere better.

    With constraints, the lower of the two total violations wins first, and costs only count between
    two feasible points (violation 0).
    """
    x, y = as_costs(np.atleast_2d(a))[0], as_costs(np.atleast_2d(b))[0]
    if x.shape != y.shape:
        raise ValueError(f"cost vectors of {len(x)} and {len(y)} objectives cannot be compared")
    if violations[0] > 0 or violations[1] > 0:
        return violations[0] < violations[1]
    return bool((x <= y).all() and (x < y).any())


def ranks(costs: ArrayLike, violations: ArrayLike | None = None) -> NDArray[np.int64]:
    """Non-dominated rank (n,) of costs (n, m): 0 for the front, 1 for the next front, and so on.

    Infeasible points (violation > 0) rank behind all feasible ones, by their total violation alone;
    equal points, and equal violations, share a rank. O(n log n) for m <= 3.
    """
    points = as_costs(costs)
    excess = as_violations(violations, len(points))
    feasible = excess == 0
    result = np.zeros(len(points), dtype=np.int64)
    if feasible.any():
        result[feasible] = (
            moocore.pareto_rank(points[feasible])
            if points.shape[1] > 1
            else _dense(points[feasible, 0])
        )
    if not feasible.all():
        behind = int(result[feasible].max()) + 1 if feasible.any() else 0
        result[~feasible] = behind + _dense(excess[~feasible])
    return result


def _dense(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def front_mask(costs: ArrayLike, violations: ArrayLike | None = None) -> NDArray[np.bool_]:
    """Which of costs (n, m) no other point dominates, as a mask (n,). Copies of a front point are
    on the front too.

    Infeasible points are on it only when nothing is feasible: then those of the least violation.
    """
    mask: NDArray[np.bool_] = ranks(costs, violations) == 0
    return mask
