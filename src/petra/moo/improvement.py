"""Expected hypervolume improvement in closed form. Costs are minimised.

The region that a set does not dominate, below the reference, is cut into boxes (Lacour, Klamroth &
Fonseca 2017). A point y then adds the sum over boxes [l, u] of prod_j (u_j - max(l_j, y_j))_+, and
for independent y_j its expectation is the product of

    E (u - max(l, y))_+ = G(u) - G(l),   G(t) = E (t - y)_+

so a box costs m numbers, whatever the distribution, as long as G is known (Yang et al. 2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from petra.moo._arrays import Floats, as_costs, as_reference


def _bounds(points: Floats, above: Floats) -> tuple[Floats, Floats]:
    """Local upper bounds (k, m) of the region that `points` (n, m) leave below `above`, and the
    points (k, m, m) that define each: the j-th one bounds it in objective j. A point of `above`
    itself stands for none.
    """
    m = len(above)
    upper = above[None, :].copy()
    # The j-th point that is no point: at `above` in j, and as low as can be elsewhere.
    nobody = np.full((m, m), -np.inf)
    nobody[np.diag_indices(m)] = above
    defining = nobody[None].copy()
    for point in points:
        inside = (point < upper).all(axis=1)
        if not inside.any():
            continue
        old_upper, old_defining = upper[inside], defining[inside]
        uppers, definings = [upper[~inside]], [defining[~inside]]
        for j in range(m):
            others = [k for k in range(m) if k != j]
            highest = old_defining[:, others, j].max(axis=1) if others else -np.inf
            valid = point[j] >= highest if m > 1 else np.ones(len(old_upper), dtype=bool)
            new_upper, new_defining = old_upper[valid], old_defining[valid]
            new_upper[:, j] = point[j]
            new_defining[:, j, :] = point
            uppers.append(new_upper)
            definings.append(new_defining)
        upper, defining = np.concatenate(uppers), np.concatenate(definings)
    return upper, defining


@dataclass(frozen=True, eq=False)
class Boxes:
    """Disjoint boxes, `lower` to `upper` (k, m), that cover what is not dominated below the
    reference. Lower bounds may be -inf.
    """

    lower: Floats
    upper: Floats

    @staticmethod
    def beyond(front: ArrayLike, reference: ArrayLike) -> Boxes:
        """Those of a set (n, m), which may be empty and hold dominated points. 2 n + 1 boxes at m =
        3, O(n^(m // 2)) at any m.
        """
        below = np.asarray(reference, dtype=np.float64)
        points = as_costs(front) if len(np.asarray(front)) else np.empty((0, len(below)))
        below = as_reference(reference, len(below))
        points = np.unique(points[(points < below).all(axis=1)], axis=0)
        upper, _ = _bounds(points, below)
        # What lies below some upper bound is what -upper dominates, seen from the other side.
        m = len(below)
        order = np.lexsort(upper.T)
        mirrored, defining = _bounds(-upper[order], np.full(m, np.inf))
        lower = np.empty_like(mirrored)
        top = np.empty_like(mirrored)
        lower[:, 0], top[:, 0] = defining[:, 0, 0], np.inf
        for j in range(1, m):
            lower[:, j] = defining[:, :j, j].max(axis=1)
            top[:, j] = mirrored[:, j]
        full = (top > lower).all(axis=1)
        return Boxes(-top[full], -lower[full])

    def improvement(self, costs: ArrayLike) -> Floats:
        """What each of costs (n, m) alone would add, as (n,). O(n k m)."""
        points = as_costs(costs)
        low = np.maximum(self.lower[None], points[:, None])
        added: Floats = np.maximum(self.upper[None] - low, 0.0).prod(axis=2).sum(axis=1)
        return added

    def expected(self, mean: Floats, deviation: Floats, logarithmic: ArrayLike) -> Floats:
        """What each of n points adds on average, as (n,), when its costs are independent and
        normal with `mean` and `deviation` (n, m), or their logarithms are, where `logarithmic`
        (m,) says so. O(n k m).
        """
        total = np.ones((len(mean), len(self.lower)))
        for j, log in enumerate(np.asarray(logarithmic, dtype=bool)):
            ends, at = np.unique(
                np.concatenate([self.lower[:, j], self.upper[:, j]]), return_inverse=True
            )
            shortfall = _log_shortfall if log else _shortfall
            g = shortfall(ends, mean[:, j, None], deviation[:, j, None])
            k = len(self.lower)
            total *= g[:, at[k:]] - g[:, at[:k]]
        added: Floats = np.maximum(total, 0.0).sum(axis=1)
        return added


def _shortfall(t: Floats, mean: Floats, deviation: Floats) -> Floats:
    """E (t - y)_+ of y ~ N(mean, deviation^2); t may be -inf."""
    finite = np.isfinite(t)
    z = (np.where(finite, t, 0.0) - mean) / deviation
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    g: Floats = np.where(finite, deviation * (z * ndtr(z) + density), 0.0)
    return g


def _log_shortfall(t: Floats, mean: Floats, deviation: Floats) -> Floats:
    """E (t - y)_+ of ln y ~ N(mean, deviation^2)."""
    positive = t > 0
    z = (np.log(np.where(positive, t, 1.0)) - mean) / deviation
    below = np.exp(mean + deviation**2 / 2) * ndtr(z - deviation)
    g: Floats = np.where(positive, np.where(positive, t, 0.0) * ndtr(z) - below, 0.0)
    return np.maximum(g, 0.0)
