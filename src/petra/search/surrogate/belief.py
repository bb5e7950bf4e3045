"""What is believed of pipelines that were not tried: costs, constraints, whether they fail; and how
much hypervolume each can be expected to add.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats.qmc import Sobol

from petra.moo.improvement import Boxes
from petra.search.surrogate.gp import Hyper, Posterior, Rows, Targets, fit
from petra.search.surrogate.memory import Memory, Table
from petra.search.surrogate.quantities import Limit, Scale

Floats = NDArray[np.float64]
LABEL_NOISE = 0.05  # variance of "it worked" (1) and "it failed" (0)
LEAST_CHANCE = 0.02  # nothing is ever ruled out
FARTHEST = 5.0  # standard deviations of what was seen, at which a bound is taken to be at most
DRAWS = 64  # of all limited quantities, while nothing is feasible


@dataclass(frozen=True, eq=False)
class Predicted:
    """One quantity: its posterior and the scale it is on."""

    posterior: Posterior
    scale: Scale

    def reachable(self, bound: float) -> float:
        """The bound on the scale; where it is beyond all that was seen, a finite stand-in."""
        seen = self.posterior.targets
        return max(self.scale.at(bound), seen.centre - FARTHEST * seen.unit)


class Beliefs:
    """Models of one moment, made from a `Memory`. Hyperparameters are fitted when the memory says
    so, and are a function of what it had then.
    """

    def __init__(self, memory: Memory, limits: Sequence[Limit]) -> None:
        self.memory, self.limits = memory, limits
        self._fitted = -1
        self._hyper: dict[int, Hyper] = {}

    def _data(self, index: int, members: Sequence[int]) -> tuple[Rows, Floats, Floats]:
        """Rows, costs and variances of those of `members` whose quantity `index` is known."""
        memory = self.memory
        known = [(i, v) for i in members if (v := memory.values[i][index]) is not None]
        rows = memory.rows([i for i, _ in known], index)
        return rows, np.array([v[0] for _, v in known]), np.array([v[1] for _, v in known])

    def _labels(self, members: Sequence[int]) -> tuple[Rows, Targets]:
        memory = self.memory
        tried = [i for i in members if memory.worked[i] is not None]
        labels = np.array([float(bool(memory.worked[i])) for i in tried])
        rows = memory.rows(tried, len(memory.quantities))
        return rows, Targets.of(labels, np.full(len(labels), LABEL_NOISE))

    def _scale(self, index: int, costs: Floats) -> Scale:
        quantity = self.memory.quantities[index]
        reference = self.memory.scaling.reference
        return Scale.of(quantity, costs, float(reference[index]) if quantity.searched else 0.0)

    def quantity(self, index: int) -> Predicted:
        """The model of one quantity."""
        rows, costs, variances = self._data(index, self.memory.used())
        scale = self._scale(index, costs)
        targets = Targets.of(*scale.to(costs, variances))
        return Predicted(Posterior(rows, targets, self._hyperparameters(index)), scale)

    def works(self) -> Posterior | None:
        """The model of not failing; None while nothing failed."""
        rows, labels = self._labels(self.memory.used())
        if labels.y.std() == 0:
            return None
        return Posterior(rows, labels, self._hyperparameters(len(self.memory.quantities)))

    def least_violation(self, models: Sequence[Predicted]) -> float:
        """Of all trials of which every limited quantity is known, on the scales of `models`."""
        least = np.inf
        for values in self.memory.values:
            known = [(limit, values[limit.index]) for limit in self.limits]
            total = 0.0
            for limit, value in known:
                if value is None:
                    break
                model = models[limit.index]
                over = model.scale.at(value[0]) - model.reachable(limit.bound)
                total += max(0.0, over if limit.below else -over)
            else:
                least = min(least, total)
        return float(least)

    def _hyperparameters(self, index: int) -> Hyper:
        if self._fitted != self.memory.fitted:
            self._fitted, self._hyper = self.memory.fitted, {}
        if index not in self._hyper:
            chosen = self.memory.chosen()
            if index == len(self.memory.quantities):
                rows, targets = self._labels(chosen)
            else:
                rows, costs, variances = self._data(index, chosen)
                targets = Targets.of(*self._scale(index, costs).to(costs, variances))
            self._hyper[index] = fit(rows, targets)
        return self._hyper[index]


class Prospects:
    """How promising pipelines are, by their features, while others are pending."""

    def __init__(
        self, beliefs: Beliefs, front: Floats, reference: Floats, pending: Table, *, feasible: bool
    ) -> None:
        """`front` (n, m) are costs, `pending` is what is under way; `feasible`: whether anything
        satisfied the constraints yet.
        """
        self.limits, self.feasible = beliefs.limits, feasible
        count = len(beliefs.memory.quantities)
        self.models = [beliefs.quantity(i) for i in range(count)]
        self.works = beliefs.works()
        self.least = beliefs.least_violation(self.models)
        self.m = len(reference)
        shifts = np.array([self.models[j].scale.shift or 0.0 for j in range(self.m)])
        self.logarithmic = [self.models[j].scale.shift is not None for j in range(self.m)]
        known = front
        if len(pending.features):
            means = [self.models[j].posterior.mean(pending.of(j)) for j in range(self.m)]
            believed = np.column_stack([self._cost(j, y) for j, y in enumerate(means)])
            known = np.vstack([front, believed])
            self.models = [
                Predicted(p.posterior.with_believed(pending.of(i)), p.scale)
                for i, p in enumerate(self.models)
            ]
        boxes = Boxes.beyond(known, reference)
        self.boxes = Boxes(boxes.lower + shifts, boxes.upper + shifts)

    def _cost(self, index: int, y: Floats) -> Floats:
        shift = self.models[index].scale.shift
        return y if shift is None else np.exp(np.minimum(y, 50.0)) - shift

    def score(self, rows: Table) -> Floats:
        """Log (n,) of what each of n `rows` is worth: its expected improvement, times the chances
        that it does not fail and satisfies the constraints; while nothing does, these chances.
        """
        predicted = [m.posterior.predict(rows.of(i)) for i, m in enumerate(self.models)]
        found = np.zeros(len(rows.features))
        if self.limits and not self.feasible:
            return self._chance(rows) + np.log(self._less_violation(predicted) + 1e-300)
        for limit in self.limits:
            mean, deviation = predicted[limit.index]
            at = self.models[limit.index].scale.at(limit.bound)
            found += limit.log_probability(at, mean, deviation)
        found += self._chance(rows)
        means = np.column_stack([mean for mean, _ in predicted[: self.m]])
        deviations = np.column_stack([d for _, d in predicted[: self.m]])
        gain = self.boxes.expected(means, np.minimum(deviations, 5.0), self.logarithmic)
        scored: Floats = found + np.log(gain + 1e-300)
        return scored

    def _chance(self, rows: Table) -> Floats:
        """Log (n,) of the chance that each does not fail."""
        if self.works is None:
            return np.zeros(len(rows.features))
        chance, _ = self.works.predict(rows.of(len(self.models)))
        found: Floats = np.log(np.clip(chance, LEAST_CHANCE, 1.0))
        return found

    def _less_violation(self, predicted: Sequence[tuple[Floats, Floats]]) -> Floats:
        """By how much each (n,) can be expected to violate the constraints less than the best so
        far, on the scales of the models: its mean over `DRAWS` (the same for all).
        """
        total = np.zeros((DRAWS, len(predicted[0][0])))
        for i, limit in enumerate(self.limits):
            mean, deviation = predicted[limit.index]
            at = self.models[limit.index].reachable(limit.bound)
            y = mean + deviation * _normal(i, len(self.limits))[:, None]
            total += np.maximum(0.0, y - at if limit.below else at - y)
        gain: Floats = np.maximum(0.0, self.least - total).mean(axis=0)
        return gain


@cache
def _normal(index: int, count: int) -> Floats:
    """Coordinate `index` of `DRAWS` points of a standard normal distribution in `count`
    dimensions, evenly spread (Sobol's sequence).
    """
    points = Sobol(count, scramble=True, seed=0).random(DRAWS)
    found: Floats = ndtri(np.clip(points[:, index], 1e-6, 1 - 1e-6))
    return found
