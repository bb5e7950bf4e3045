"""Which move to make next: probabilities that follow each move's success.

Probability matching (Goldberg 1990; Thierens 2005) with a floor, so that no move dies out: the
target of move a is

    p_a = p_min + (1 - K p_min) q_a / sum_b q_b

over K moves, where q_a is the share of a's children that were worth having. Few trials say little:
old ones are discounted, q_a is shrunk towards the share over all moves, and the probabilities go
only part of the way each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

FLOOR = 0.03  # p_min
RATE = 0.1  # part of the way to the target, per generation
DISCOUNT = 0.95  # weight of a result one generation later
PRIOR = 4.0  # strength of the shrinkage, in children


class Adaptation:
    """Probabilities of named moves.

    A function of `start` and the outcomes given to `update`, in their order.
    """

    def __init__(self, start: Mapping[str, float]) -> None:
        """`start` holds positive weights; the first probabilities are proportional to them."""
        total = sum(start.values())
        self.probabilities = {name: weight / total for name, weight in start.items()}
        self._made = dict.fromkeys(start, 0.0)
        self._good = dict.fromkeys(start, 0.0)

    def update(self, outcomes: Iterable[tuple[str, bool]]) -> None:
        """Learn from one generation: for every child, its moves and whether it was worth it."""
        for name in self._made:
            self._made[name] *= DISCOUNT
            self._good[name] *= DISCOUNT
        for name, good in outcomes:
            self._made[name] += 1
            self._good[name] += good
        quality = self.quality()
        total = sum(quality.values())
        spare = 1 - FLOOR * len(quality)
        for name, q in quality.items():
            target = FLOOR + spare * q / total
            self.probabilities[name] += RATE * (target - self.probabilities[name])

    def quality(self) -> dict[str, float]:
        """Estimated share of each move's children that are worth having."""
        overall = (sum(self._good.values()) + 1) / (sum(self._made.values()) + 2)
        return {
            name: (self._good[name] + PRIOR * overall) / (made + PRIOR)
            for name, made in self._made.items()
        }
