"""Costs in units of the untouched model, with a fixed reference point: what makes hypervolumes
comparable.

The search and the report both measure progress as hypervolume; it is the same number only if both
scale alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petra.core.errors import ConfigError
from petra.core.metric import describe
from petra.core.objective import Constraint, Objective, baseline_value, violation
from petra.core.trial import Trial, TrialStatus
from petra.moo.hypervolume import hypervolume

RATIO_REFERENCE = 1.1  # a tenth more than the untouched model's latency, size, ...
SCORE_REFERENCE = 0.5  # half of the untouched model's score lost
ERROR_REFERENCE = 1.0  # twice the untouched model's error
_TINY = 1e-9


@dataclass(frozen=True, eq=False)
class Scaling:
    """Normalised costs of trials: one per objective, all minimised, the untouched model at 1 (or at
    0 for quality).

    `reference` (m,) bounds the region of interest; a point outside it counts for nothing. Made by
    `scale`.
    """

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    baseline: Trial
    reference: NDArray[np.float64]

    def costs(self, trial: Trial) -> NDArray[np.float64]:
        """Cost vector (m,) of a trial. A metric that is not a number, or not known of a screened
        trial, costs +inf.
        """
        values = [
            o.resolved(_cost(o, trial.metrics[o.metric].mean, self.baseline))
            if o.metric in trial.metrics
            else math.inf
            for o in self.objectives
        ]
        return np.array([math.inf if math.isnan(v) else v for v in values])

    def worst(self) -> dict[str, float]:
        """The reference point in the metrics' own units, by metric; those that nothing can lie
        beyond are left out.
        """
        found = {}
        for objective, cost in zip(self.objectives, self.reference, strict=True):
            unit = _unit(objective, self.baseline)
            kind = describe(objective.metric).scale
            if kind == "share":
                start = self.baseline.metrics[objective.metric].mean
                found[objective.metric] = start + (-cost if objective.maximize else cost) * unit
            elif kind == "ratio":
                found[objective.metric] = unit / cost if objective.maximize else unit * cost
        return {name: float(value) for name, value in found.items()}

    def violation(self, trial: Trial) -> float:
        """Total relative violation of the constraints by a trial, as far as it is known: 0 of a
        measured one means feasible.
        """
        known = [c for c in self.constraints if c.metric in trial.metrics]
        return violation(known, trial.metrics, self.baseline.metrics)

    def misses(self, trial: Trial) -> bool:
        """Whether the trial was screened and is known to be infeasible: it ranks behind all that
        are feasible, by its violation, which shows where feasible ones are.
        """
        return trial.status is TrialStatus.SCREENED and self.violation(trial) > 0

    def usable(self, trial: Trial) -> bool:
        """Whether the trial was measured, at full fidelity, and all its costs are finite: no other
        can be ranked.
        """
        return trial.comparable and bool(np.isfinite(self.costs(trial)).all())

    def hypervolume(self, trials: Iterable[Trial]) -> float:
        """Hypervolume of the usable, feasible ones among `trials`."""
        rows = [self.costs(t) for t in trials if self.usable(t) and self.violation(t) == 0]
        return hypervolume(np.array(rows), self.reference) if rows else 0.0


def scale(
    objectives: Sequence[Objective], constraints: Sequence[Constraint], baseline: Trial
) -> Scaling:
    """The scaling of a study.

    What `Metric.scale` says of an objective decides the cost of its value v beside the untouched
    model's b, and how far the region of interest reaches:

    - "ratio" (latency, size, parameters, ...): v / b, or b / v where more is better; 1.1
    - "share" (all that the task measures): (b - v) / |b| where more is better, with 0.5, else
      (v - b) / |b| with 1.0; or just beyond a constraint
    - "half" (training time): v / (v + half); 1.1

    Raises ConfigError when the baseline has no positive value of a metric that is measured against
    it.
    """
    reference = np.array([_reference(o, constraints, baseline) for o in objectives])
    reference.setflags(write=False)
    return Scaling(tuple(objectives), tuple(constraints), baseline, reference)


def _unit(objective: Objective, baseline: Trial) -> float:
    """What one unit of cost is, in the objective's metric."""
    metric = describe(objective.metric)
    if metric.scale == "half":
        return metric.half
    value = baseline_value(objective.metric, baseline.metrics)
    if metric.scale == "share":
        return abs(value) if abs(value) > _TINY else 1.0
    if not value > 0:
        raise ConfigError(
            f"objectives: {objective.metric} of the untouched model is {value:g}, nothing can be"
            " measured against it",
            hint="choose another objective",
        )
    return value


def _cost(objective: Objective, value: float, baseline: Trial) -> float:
    unit, scale = _unit(objective, baseline), describe(objective.metric).scale
    if scale == "share":
        start = baseline.metrics[objective.metric].mean
        return (start - value if objective.maximize else value - start) / unit
    if scale == "half":
        return value / (value + unit)
    if objective.maximize:
        return unit / value if value > 0 else math.inf
    return value / unit


def _reference(objective: Objective, constraints: Sequence[Constraint], baseline: Trial) -> float:
    _unit(objective, baseline)  # refuses what cannot be scaled
    if describe(objective.metric).scale != "share":
        return RATIO_REFERENCE
    bounds = [
        _cost(objective, c.bound(baseline.metrics), baseline)
        for c in constraints
        if c.metric == objective.metric and c.at_least == objective.maximize
    ]
    if not bounds:
        return SCORE_REFERENCE if objective.maximize else ERROR_REFERENCE
    # Slightly beyond the bound, so that a point on it still counts.
    return min(bounds) + max(0.1 * abs(min(bounds)), 0.005)
