"""Whether a candidate can still come to anything, judged by what is known of it so far.

Pure: a function of what is known and of the candidate's rivals.

*Optimism.* Each known metric lies within a span, whose better end counts. Of what the task measures
(the quality), unless it is known: no better than the best that the untouched model and the rivals
on the front have shown. A candidate would have to beat that to be on the front beside a rival that
is as good and costs less; what would be hoped for is mostly the draw of the validation items, and
`audited` candidates say how often the hope was worth it. Any other metric that is not known may
turn out as good as one likes, so that nothing is left on its account.

*Distinctly.* Spans include the errors of what was measured and of what comes later. So a candidate
that costs what a rival costs is not dominated by it: training will tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from petra.core.errors import PetraError
from petra.core.measurement import Measurement
from petra.core.metric import describe
from petra.core.objective import Constraint, Metrics, Objective
from petra.core.pipeline import Pipeline
from petra.core.rivals import Rivals
from petra.core.rng import derive_seed
from petra.core.trial import StageTrace

AUDITED = 10  # one in so many of those that would be left is evaluated in full
_ERRORS = 2.0  # standard errors by which a rival's sampled or timed figure may be better or worse


@dataclass(frozen=True)
class Span:
    """Between which values a metric will turn out to be."""

    low: float
    high: float

    def best(self, *, maximize: bool) -> float:
        return self.high if maximize else self.low


Known = Mapping[str, Span]


@dataclass(frozen=True)
class Hopeless:
    """Why a candidate is left: `kind` is "constraint" (it violates one), "region" (it lies beyond
    what hypervolume counts), "dominated" (a rival is better), or "quality" where one of these is so
    by its quality alone; `reason` says it in words.
    """

    kind: str
    reason: str


class Left(PetraError):
    """A candidate is left, for what was `found`; `metrics` are known of it, and what ran."""

    def __init__(self, found: Hopeless, metrics: Metrics, trace: tuple[StageTrace, ...]) -> None:
        super().__init__(found.reason)
        self.found, self.metrics, self.trace = found, dict(metrics), trace


def hopeless(known: Known, rivals: Rivals) -> Hopeless | None:
    """Why a candidate of which so much is known can be left; None while it has a chance."""
    return _violates(known, rivals) or _beyond(known, rivals) or _dominated(known, rivals)


def audited(seed: int, pipeline: Pipeline) -> bool:
    """Whether a candidate is evaluated in full even if it is hopeless. A function of the study's
    seed and of the pipeline, so the same whoever asks and when.
    """
    return derive_seed(seed, "audit", pipeline.key) % AUDITED == 0


def can_be_screened(rivals: Rivals, costs: frozenset[str]) -> bool:
    """Whether anything is asked of these metrics: a constraint on one of them, or rivals besides
    the untouched model, when one of them is an objective.
    """
    compared = any(o.metric in costs for o in rivals.objectives)
    others = [metrics for metrics in rivals.front if metrics != rivals.baseline]
    return any(c.metric in costs for c in rivals.constraints) or (compared and bool(others))


def _violates(known: Known, rivals: Rivals) -> Hopeless | None:
    for constraint in rivals.constraints:
        if constraint.metric not in known:
            continue
        best = known[constraint.metric].best(maximize=constraint.at_least)
        if _excess(constraint, best, rivals.baseline):
            return Hopeless("constraint", f"{_at_best(constraint.metric, best)}: {constraint}")
    return None


def _excess(constraint: Constraint, value: float, baseline: Metrics) -> float:
    return constraint.violation({constraint.metric: Measurement(value)}, baseline)


def _beyond(known: Known, rivals: Rivals) -> Hopeless | None:
    for objective in rivals.objectives:
        worst = rivals.worst.get(objective.metric)
        if worst is None or objective.metric not in known:
            continue
        best = known[objective.metric].best(maximize=objective.maximize)
        if _cost(objective, best) > _cost(objective, worst):
            text = f"{_at_best(objective.metric, best)}, and beyond {worst:.4g} nothing counts"
            return Hopeless("region", text)
    return None


def _dominated(known: Known, rivals: Rivals) -> Hopeless | None:
    mine = {o: _optimistic(o, known, rivals) for o in rivals.objectives}
    if None in mine.values():
        return None
    for metrics in rivals.front:
        theirs = {o: _cost(o, _pessimistic(o, metrics)) for o in mine}
        costs = {o: _cost(o, value) for o, value in mine.items() if value is not None}
        if all(theirs[o] <= costs[o] for o in costs) and any(theirs[o] < costs[o] for o in costs):
            words = ", ".join(
                f"{o.metric} {value:.4g} against {metrics[o.metric].mean:.4g}"
                for o, value in mine.items()
            )
            return Hopeless("dominated", f"at best it is no better than another model: {words}")
    return None


def _optimistic(objective: Objective, known: Known, rivals: Rivals) -> float | None:
    """The best value that is hoped for; None where there is no telling."""
    name = objective.metric
    if name in known:
        return known[name].best(maximize=objective.maximize)
    if not describe(name).sampled:
        return None
    seen = [metrics[name].mean for metrics in (rivals.baseline, *rivals.front)]
    return max(seen) if objective.maximize else min(seen)


def _pessimistic(objective: Objective, metrics: Metrics) -> float:
    """A rival's value; of what is timed, the worse end of its interval."""
    found = metrics[objective.metric]
    if not describe(objective.metric).timed:
        return found.mean
    return found.mean + (-_ERRORS if objective.maximize else _ERRORS) * found.stderr


def _cost(objective: Objective, value: float) -> float:
    return -value if objective.maximize else value


def _at_best(metric: str, value: float) -> str:
    return f"{metric} {value:.4g} at best"
