"""What is believed of pipelines that were not tried: costs, constraints, whether they fail; and how
much hypervolume each can be expected to add.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petra.moo.improvement import Boxes
from petra.search.surrogate.gp import Hyper, Posterior, Rows, Targets, fit
from petra.search.surrogate.memory import Memory, Table
from petra.search.surrogate.quantities import Limit, Scale

Floats = NDArray[np.float64]
LABEL_NOISE = 0.05  # variance of "it worked" (1) and "it failed" (0)
LEAST_CHANCE = 0.02  # nothing is ever ruled out


@dataclass(frozen=True, eq=False)
class Predicted:
    """One quantity: its posterior and the scale it is on."""

    posterior: Posterior
    scale: Scale


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
        for limit in self.limits:
            mean, deviation = predicted[limit.index]
            at = self.models[limit.index].scale.at(limit.bound)
            found += limit.log_probability(at, mean, deviation)
        if self.works is not None:
            chance, _ = self.works.predict(rows.of(len(self.models)))
            found += np.log(np.clip(chance, LEAST_CHANCE, 1.0))
        if self.limits and not self.feasible:
            return found
        means = np.column_stack([mean for mean, _ in predicted[: self.m]])
        deviations = np.column_stack([d for _, d in predicted[: self.m]])
        gain = self.boxes.expected(means, np.minimum(deviations, 5.0), self.logarithmic)
        scored: Floats = found + np.log(gain + 1e-300)
        return scored
