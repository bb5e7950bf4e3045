"""What is predicted: for each objective and each further constrained metric a number with a
standard error, lower is better, on a scale on which normal distributions fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from petra.core.measurement import Measurement
from petra.core.metric import describe
from petra.core.objective import Constraint, Objective
from petra.core.trial import Trial, TrialStatus
from petra.search.scaling import Scaling

Floats = NDArray[np.float64]
# Costs of what a task measures are predicted as log(cost + shift), so that they are told apart
# where they are low: the shift, above the least cost, as a share of the region of interest.
SHIFT = 0.5
NOTHING = 1e-3
"""What nothing at all costs, of metrics of which the untouched model has none: its logarithm is
below those of whatever counts, and still on one scale with them.
"""


@dataclass(frozen=True)
class Quantity:
    """An objective, or a constrained metric that is none. `logarithmic` ones are positive."""

    objective: Objective
    logarithmic: bool
    searched: bool  # whether it is an objective of the study

    def cost(self, scaling: Scaling, value: float) -> float:
        """The value as a cost: that of `scaling` for an objective, else in the metric's unit."""
        if self.searched:
            return scaling.cost(self.objective, value)
        return -value if self.objective.maximize else value

    def observe(self, scaling: Scaling, trial: Trial) -> tuple[float, float] | None:
        """Cost and variance of its mean, where the trial has it as an evaluation in full would."""
        measured: Measurement | None = trial.metrics.get(self.objective.metric)
        if measured is None or not _tells(trial, self.objective.metric):
            return None
        value, error = measured.mean, measured.stderr
        cost = self.cost(scaling, value)
        if cost == 0 and describe(self.objective.metric).scale == "half":
            return NOTHING, 0.0
        if not math.isfinite(cost) or (self.logarithmic and cost <= 0):
            return None
        error = abs(self.cost(scaling, value + error) - cost) if error > 0 else 0.0
        return cost, error**2 if math.isfinite(error) else 0.0


def _tells(trial: Trial, metric: str) -> bool:
    """Whether a trial's value of the metric is that of its pipeline: all values of one evaluated in
    full; of others what does not depend on training, nearly.
    """
    if trial.comparable:
        return True
    return trial.status is not TrialStatus.FAILED and not describe(metric).sampled


def quantities(
    objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> tuple[Quantity, ...]:
    """The objectives in order, then each constrained metric that is none of them."""
    found = [Quantity(o, describe(o.metric).scale != "share", True) for o in objectives]
    known = {o.metric for o in objectives}
    for c in constraints:
        if c.metric not in known:
            known.add(c.metric)
            positive = describe(c.metric).scale == "ratio" and not c.at_least
            found.append(Quantity(Objective(c.metric, c.at_least), positive, False))
    return tuple(found)


@dataclass(frozen=True)
class Scale:
    """y = log(cost + shift), or the cost itself where `shift` is None."""

    shift: float | None

    @staticmethod
    def of(quantity: Quantity, costs: Floats, reference: float) -> Scale:
        """The scale for a quantity with these costs; `reference` bounds the region of interest."""
        if quantity.logarithmic:
            return Scale(0.0)
        low = float(costs.min())
        room = max(reference, float(np.median(costs))) - low
        if not (quantity.searched and room > 1e-9):
            return Scale(None)
        return Scale(SHIFT * room - low)

    def to(self, costs: Floats, variances: Floats) -> tuple[Floats, Floats]:
        """Costs and their variances on this scale."""
        if self.shift is None:
            return costs, variances
        moved = costs + self.shift
        return np.log(moved), variances / moved**2

    def at(self, cost: float) -> float:
        """One cost on this scale; -inf below all that it can show."""
        if self.shift is None:
            return cost
        return math.log(cost + self.shift) if cost + self.shift > 0 else -math.inf


@dataclass(frozen=True)
class Limit:
    """A constraint as a bound on quantity number `index`, in costs."""

    index: int
    bound: float
    below: bool

    def log_probability(self, at: float, mean: Floats, deviation: Floats) -> Floats:
        """Log probability that it holds, where the bound is `at` on the quantity's scale."""
        z = (at - mean) / deviation
        found: Floats = log_ndtr(z if self.below else -z)
        return found


def limits(
    all_of: Sequence[Quantity], constraints: Sequence[Constraint], scaling: Scaling
) -> tuple[Limit, ...]:
    """The constraints as bounds on the quantities."""
    index: Mapping[str, int] = {q.objective.metric: i for i, q in enumerate(all_of)}
    found = []
    for c in constraints:
        i = index[c.metric]
        bound = all_of[i].cost(scaling, c.bound(scaling.baseline.metrics))
        found.append(Limit(i, bound, c.at_least == all_of[i].objective.maximize))
    return tuple(found)
