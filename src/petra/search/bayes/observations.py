"""What trials teach the models: a table of numbers for each quantity that is modelled."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from petra.core.metric import describe
from petra.core.objective import Constraint
from petra.core.trial import Trial, TrialStatus
from petra.moo.dominance import ranks
from petra.search.bayes.copula import NormalCopula
from petra.search.scaling import Scaling

FAILING = "failing"
LEAST = 1e-6  # variance of what was counted, for the sake of numerics


@dataclass(frozen=True, eq=False)
class Quantity:
    """What has a model of its own: the cost that `cost` makes of a trial's metric, less is better.

    Costs beyond `limit` are worth nothing: of an objective, those outside of the region of interest
    or of a constraint on the same metric; of another constraint, all that break it.
    """

    metric: str
    cost: Callable[[float], float]
    limit: float

    def observed(self, trial: Trial) -> tuple[float, float] | None:
        """Cost and standard error; None where the trial says nothing of it.

        What was not evaluated in full says nothing of what training decides, and all there is to
        say of its size or speed.
        """
        m = trial.metrics.get(self.metric)
        trained = describe(self.metric).sampled or describe(self.metric).scale == "half"
        if m is None or (trained and not trial.comparable):
            return None
        cost = self.cost(m.mean)
        error = abs(self.cost(m.mean + m.stderr) - self.cost(m.mean - m.stderr)) / 2
        return (cost, error if math.isfinite(error) else 0.0) if math.isfinite(cost) else None


def quantities(scaling: Scaling) -> dict[str, Quantity]:
    """Those of the objectives, in order and by the name of the metric, and those of constraints, as
    they are written.

    A constraint on an objective's metric, and in its direction, is the end of the region of
    interest and needs no model of its own.
    """
    found, left = {}, list(scaling.constraints)
    for o, reference in zip(scaling.objectives, scaling.reference, strict=True):
        same = [c for c in left if c.metric == o.metric and c.at_least == o.maximize]
        left = [c for c in left if c not in same]
        bounds = [scaling.cost(o, c.bound(scaling.baseline.metrics)) for c in same]
        limit = min([float(reference), *bounds])
        found[o.metric] = Quantity(o.metric, partial(scaling.cost, o), limit)
    return found | {str(c): _excess(c, scaling.baseline) for c in left}


def _excess(constraint: Constraint, baseline: Trial) -> Quantity:
    bound = constraint.bound(baseline.metrics)
    unit = max(abs(bound), 1e-9) * (-1 if constraint.at_least else 1)
    return Quantity(constraint.metric, lambda v: (v - bound) / unit, 0.0)


@dataclass(frozen=True, eq=False)
class Lesson:
    """Observations of one quantity: of which trials (n,), normal scores (n,), their variances (n,),
    and the score of the limit.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    variances: NDArray[np.float64]
    limit: float

    def __len__(self) -> int:
        return len(self.rows)


def lessons(scaling: Scaling, trials: Sequence[Trial]) -> dict[str, Lesson]:
    """What `trials` say of each quantity of which they say anything, and under `FAILING`, once one
    has, which of them failed (score 1; -1: did not; limit 0).
    """
    found = {n: _lesson(q, trials) for n, q in quantities(scaling).items()}
    failed = [t.status in (TrialStatus.FAILED, TrialStatus.TIMED_OUT) for t in trials]
    if any(failed):
        rows, scores = np.arange(len(trials)), np.where(failed, 1.0, -1.0)
        found[FAILING] = Lesson(rows, scores, np.full(len(trials), LEAST), 0.0)
    return {name: lesson for name, lesson in found.items() if lesson is not None}


def _lesson(quantity: Quantity, trials: Sequence[Trial]) -> Lesson | None:
    known = {i: seen for i, t in enumerate(trials) if (seen := quantity.observed(t)) is not None}
    if not known:
        return None
    costs, errors = np.array(list(known.values())).T
    copula = NormalCopula(costs)
    variances = np.maximum(copula.error(costs, errors) ** 2, LEAST)
    limit = float(copula([quantity.limit])[0])
    return Lesson(np.array(list(known)), copula(costs), variances, limit)


def remembered(trials: Sequence[Trial], scaling: Scaling, most: int) -> list[int]:
    """Indices, ascending, of the trials that the models are given: all, or `most` of them.

    Half are the best, by Pareto rank and violation, the others the latest: what is known of good
    pipelines, and of those that the search is among now.
    """
    if len(trials) <= most:
        return list(range(len(trials)))
    usable = [i for i, t in enumerate(trials) if scaling.usable(t)]
    rank = ranks(
        [scaling.costs(trials[i]) for i in usable], [scaling.violation(trials[i]) for i in usable]
    )
    best = [usable[int(i)] for i in np.argsort(rank, kind="stable")[: most // 2]]
    chosen = set(best)
    for i in reversed(range(len(trials))):
        if len(chosen) == most:
            break
        chosen.add(i)
    return sorted(chosen)
