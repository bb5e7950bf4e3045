"""Choosing from a set: who survives into the next population, which point to recommend."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from petra.moo._arrays import Floats, as_costs, as_reference, as_violations
from petra.moo.dominance import front_mask, ranks
from petra.moo.hypervolume import contributions

# What each of some points (n, m) that no other of them dominates is worth, as (n,), given the
# reference point.
Worth = Callable[[ArrayLike, ArrayLike], Floats]


def crowding(costs: ArrayLike, reference: ArrayLike) -> Floats:
    """Crowding distance (n,) of costs (n, m): the sum over the objectives of the distance between
    both neighbours, over the range; infinite at either end (Deb et al. 2002, NSGA-II, section III).

    A `Worth` that looks at no reference point. O(m n log n).
    """
    points = as_costs(costs)
    distance = np.zeros(len(points))
    for column in points.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]] if len(order) else 0.0
        distance[order[:1]] = distance[order[-1:]] = np.inf
        if span > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance


def survivors(
    costs: ArrayLike,
    mu: int,
    *,
    reference: ArrayLike,
    violations: ArrayLike | None = None,
    worth: Worth = contributions,
) -> NDArray[np.int64]:
    """Indices, ascending, of the `mu` points of costs (n, m) to keep (all, when n <= mu).

    Whole non-dominated ranks first; of the last rank admitted the point of least `worth`, by
    default its hypervolume contribution, goes, again and again, until the rest fits (SMS-EMOA,
    Beume et al. 2007). Further copies of a feasible point come after all distinct feasible points,
    infeasible points after those, by violation. Ties: points further beyond the reference go first,
    then those of higher index. Costs up to n computations of worth.
    """
    points = as_costs(costs)
    excess = as_violations(violations, len(points))
    below = as_reference(reference, points.shape[1])
    feasible = np.flatnonzero(excess == 0)
    infeasible = np.flatnonzero(excess > 0)
    kept: list[int] = []
    for layer in _layers(points, feasible):
        room = mu - len(kept)
        if room <= 0:
            break
        kept.extend(layer if len(layer) <= room else _trimmed(points, layer, room, below, worth))
    by_violation = infeasible[np.argsort(excess[infeasible], kind="stable")]
    kept.extend(int(i) for i in by_violation[: max(0, mu - len(kept))])
    return np.sort(np.array(kept, dtype=np.int64))


def best_first(
    costs: ArrayLike,
    *,
    reference: ArrayLike,
    violations: ArrayLike | None = None,
    most: int | None = None,
) -> list[int]:
    """Indices of costs (n, m), the best `most` of them (None: all), the best first: by
    non-dominated rank, within a rank by hypervolume contribution, then the lower index. One
    computation of contributions for each rank that is needed.
    """
    points = as_costs(costs)
    room, rank = len(points) if most is None else most, ranks(points, violations)
    order: list[int] = []
    for level in range(int(rank.max(initial=-1)) + 1):
        if len(order) >= room:
            break
        layer = np.flatnonzero(rank == level)
        gain = contributions(points[layer], reference)
        order += [int(layer[i]) for i in np.argsort(-gain, kind="stable")]
    return order[:room]


def _layers(points: Floats, members: NDArray[np.int64]) -> list[list[int]]:
    """Members rank by rank: first one copy of every point, then the rest, again by rank."""
    layers: list[list[int]] = []
    while len(members):
        first = np.sort(np.unique(points[members], axis=0, return_index=True)[1])
        distinct = members[first]
        rank = ranks(points[distinct])
        layers.extend([int(i) for i in distinct[rank == r]] for r in range(int(rank.max()) + 1))
        members = np.delete(members, first)
    return layers


def _trimmed(points: Floats, layer: list[int], room: int, below: Floats, worth: Worth) -> list[int]:
    kept = list(layer)
    beyond = np.maximum(points - below, 0.0).sum(axis=1)
    while len(kept) > room:
        gain = worth(points[kept], below)
        worst = min(range(len(kept)), key=lambda i: (gain[i], -beyond[kept[i]], -kept[i]))
        del kept[worst]
    return kept


def knee(costs: ArrayLike) -> int:
    """Index of the knee of costs (n, m): the point that bulges most to the ideal (Das 1999).

    Objectives are scaled to [0, 1] over the front; the knee is furthest, on the ideal's side, from
    the line (m = 2), plane or hyperplane through the extreme points, which are the best of each
    objective. Where these span no such plane it is the plane through the unit points, that is, the
    least sum of scaled costs. Objectives that do not vary are ignored; ties go to the lower index.
    Raises ValueError for an empty set and for infinite costs.
    """
    points = as_costs(costs)
    if len(points) == 0 or not np.isfinite(points).all():
        raise ValueError("a knee needs at least one point, and finite costs")
    front = np.flatnonzero(front_mask(points))
    low, high = points[front].min(axis=0), points[front].max(axis=0)
    varies = high > low
    if not varies.any():
        return int(front[0])
    scaled = (points[front][:, varies] - low[varies]) / (high - low)[varies]
    normal = _plane(scaled)
    depth = (1.0 - scaled @ normal) / np.linalg.norm(normal)
    # Rounding must not decide between points that lie equally deep.
    return int(front[np.flatnonzero(depth >= depth.max() - 1e-12)[0]])


def _plane(scaled: Floats) -> Floats:
    """Normal a of the plane a.x = 1 through each objective's best point; ones without one."""
    m = scaled.shape[1]
    total = scaled.sum(axis=1)
    extremes = np.array([scaled[np.lexsort((total, scaled[:, j]))[0]] for j in range(m)])
    if np.linalg.matrix_rank(extremes) == m:
        normal: Floats = np.linalg.solve(extremes, np.ones(m))
        if (normal > 0).all():
            return normal
    return np.ones(m)
