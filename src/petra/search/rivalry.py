"""The front of what a searcher was told, kept as results come in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from petra.core.curve import curve_of
from petra.core.errors import ConfigError
from petra.core.objective import Constraint, Objective, violation
from petra.core.rivals import Rivals
from petra.core.trial import Trial
from petra.moo.dominance import front_mask
from petra.search.base import Problem
from petra.search.scaling import scale

CURVES = 64  # learning curves kept, the latest


class Rivalry:
    """`rivals` is what the next proposal is up against. Each trial costs O(f log f) at f members of
    the front.
    """

    def __init__(self, problem: Problem, baseline: Trial) -> None:
        """`baseline` is trial 0; it is on the front where it meets the constraints."""
        worst = region(problem.objectives, problem.constraints, baseline)
        self.rivals = Rivals(problem.objectives, problem.constraints, baseline.metrics, worst=worst)
        self._costs: list[list[float]] = []  # of the front's members
        self.learn(baseline)

    def learn(self, trial: Trial) -> None:
        """A result was told."""
        if trial.comparable:
            curves = (*self.rivals.curves, *filter(None, map(curve_of, trial.trace)))
            self.rivals = replace(self.rivals, curves=curves[-CURVES:])
        known = self.rivals
        if not trial.comparable or violation(known.constraints, trial.metrics, known.baseline) > 0:
            return
        members = [*known.front, trial.metrics]
        costs = [*self._costs, [o.cost(trial.metrics) for o in known.objectives]]
        if not np.isfinite(costs[-1]).all():
            return
        on = front_mask(costs)
        if on[-1]:
            self._costs = [c for c, kept in zip(costs, on, strict=True) if kept]
            front = tuple(m for m, kept in zip(members, on, strict=True) if kept)
            self.rivals = replace(known, front=front)


def region(
    objectives: Sequence[Objective], constraints: Sequence[Constraint], baseline: Trial
) -> dict[str, float]:
    """Bounds of the region of interest; none where the untouched model gives no scale."""
    try:
        return scale(objectives, constraints, baseline).worst()
    except ConfigError:
        return {}
