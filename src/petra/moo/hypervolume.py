"""Exact hypervolume and contributions (by moocore). Costs are minimised.

The hypervolume of a set is the volume it dominates below a reference point (Zitzler & Thiele 1998).
A point that is not strictly better than the reference in every objective dominates none of that
volume and counts for nothing.
"""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import ArrayLike

from petra.moo._arrays import Floats, as_costs, as_reference


def hypervolume(costs: ArrayLike, reference: ArrayLike) -> float:
    """Hypervolume of costs (n, m) below `reference` (m,); 0 for an empty set. O(n log n) up to m =
    3, O(n^2) at 4.
    """
    points = as_costs(costs)
    below = as_reference(reference, points.shape[1])
    inside = points[(points < below).all(axis=1)]
    if len(inside) == 0:
        return 0.0
    if points.shape[1] == 1:
        return float(below[0] - inside.min())
    return float(moocore.hypervolume(inside, ref=below))


def contributions(costs: ArrayLike, reference: ArrayLike) -> Floats:
    """What each of costs (n, m) adds: the hypervolume of all minus that of all others, as (n,).

    Dominated points and points beyond the reference contribute zero; so does *each* of several
    equal points, since the others remain. Whoever deletes the zeros deletes all copies: remove one
    point at a time, as `selection.survivors` does. Costs n + 1 hypervolumes for m >= 3.
    """
    points = as_costs(costs)
    below = as_reference(reference, points.shape[1])
    inside = (points < below).all(axis=1)
    result = np.zeros(len(points))
    if points.shape[1] == 1:
        if inside.any():
            order = np.append(np.sort(points[inside, 0]), below[0])
            result[np.flatnonzero(inside)[np.argmin(points[inside, 0])]] = order[1] - order[0]
        return result
    if inside.any():
        exact = moocore.hv_contributions(points[inside], ref=below, ignore_dominated=False)
        # A difference of two nearly equal volumes may come out as a tiny negative number.
        result[inside] = np.maximum(exact, 0.0)
    return result
