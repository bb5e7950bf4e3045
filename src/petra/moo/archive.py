"""The non-dominated points so far and their exact hypervolume, kept up point by point."""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import ArrayLike

from petra.moo._arrays import Floats, as_costs, as_reference
from petra.moo.hypervolume import hypervolume


class Archive:
    """The front of all points added, each with its number, and the hypervolume that they dominate.

    Dominance is that of `petra.moo.dominance`: feasible points before infeasible ones, and of
    these those of the least violation. Of points that are equal the first is kept. `volume` is that
    of the feasible ones and never falls.

    A point costs O(n m) comparisons with the n on the front; one that joins it also the hypervolume
    of what the others leave of its box (the exclusive hypervolume of While, Bradstreet & Barone
    2012), for which few of them matter: up to five objectives well below a millisecond at a
    thousand points, where the hypervolume of all takes a second.
    """

    def __init__(self, reference: ArrayLike) -> None:
        """`reference` (m,): what lies beyond it is on the front, and adds no hypervolume."""
        size = np.asarray(reference).size
        self.reference = as_reference(reference, size)
        self.volume = 0.0
        self.violation = float("inf")  # of the members, all of which have the same
        self._costs = np.empty((0, size))
        self._numbers = np.empty(0, dtype=np.int64)

    @property
    def members(self) -> tuple[int, ...]:
        """Numbers of the points on the front, in the order in which they joined."""
        return tuple(self._numbers.tolist())

    @property
    def costs(self) -> Floats:
        """Costs (n, m) of the members, in the same order."""
        return self._costs.copy()

    def add(self, number: int, costs: ArrayLike, violation: float = 0.0) -> bool:
        """Take a point (m,) in unless another is as good; whether it is a member now."""
        point = as_costs(np.atleast_2d(costs))[0]
        if violation < self.violation:
            self._costs, self._numbers = self._costs[:0], self._numbers[:0]
            self.violation = violation
        as_good = self._costs <= point if violation == 0 else self._costs == point
        if violation > self.violation or as_good.all(axis=1).any():
            return False
        if violation == 0:
            self.volume += self._exclusive(point)
            kept = ~(point <= self._costs).all(axis=1)
            self._costs, self._numbers = self._costs[kept], self._numbers[kept]
        self._costs = np.vstack([self._costs, point])
        self._numbers = np.append(self._numbers, number)
        return True

    def _exclusive(self, point: np.ndarray) -> float:
        """The hypervolume that the point adds: its box less what the others dominate of it."""
        if not (point < self.reference).all():
            return 0.0
        box = float(np.prod(self.reference - point))
        limited = np.maximum(self._costs, point)
        limited = limited[(limited < self.reference).all(axis=1)]
        if not len(limited):
            return box
        if len(point) > 1:
            limited = limited[moocore.is_nondominated(limited)]
        return max(0.0, box - hypervolume(limited, self.reference))
