"""What became of every trial of a study, in a word and a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from petra.core.objective import Constraint, Metrics
from petra.core.text import first_line, printable
from petra.core.trial import Trial, TrialStatus
from petra.front import Front, broken, figures
from petra.report.metric_text import metric_words, renamed
from petra.report.numbers_text import value
from petra.report.pipeline_text import fidelity_in_words


class Kind(StrEnum):
    """What a trial is to whoever chooses a model."""

    UNTOUCHED = "untouched model"
    FRONT = "on the front"
    DOMINATED = "dominated"
    INFEASIBLE = "infeasible"
    PARTLY = "partly evaluated"
    SCREENED = "screened"
    FAILED = "failed"


@dataclass(frozen=True)
class Verdict:
    """What a trial is, and why; the reason is '' for members of the front."""

    kind: Kind
    reason: str = ""


def verdicts(front: Front) -> Mapping[int, Verdict]:
    """One for every trial, by number. O(trials x members)."""
    members = {trial.number for trial in front.members}
    costs = np.array([_costs(front, trial) for trial in front.members])

    def of(trial: Trial) -> Verdict:
        if trial.number in members:
            return Verdict(Kind.FRONT if trial.number else Kind.UNTOUCHED)
        kind, reason = _verdict(front, trial, costs)
        return Verdict(kind if trial.number else Kind.UNTOUCHED, reason)

    return {trial.number: of(trial) for trial in front.trials}


def _verdict(front: Front, trial: Trial, members: NDArray[np.float64]) -> tuple[Kind, str]:
    if trial.failure and not trial.measured:
        failure = trial.failure
        said = renamed(front.catalogue, printable(first_line(failure.message) or failure.kind))
        if trial.status is TrialStatus.SCREENED:
            return Kind.SCREENED, f"{printable(failure.kind)}: {said}"
        return Kind.FAILED, f"in {printable(failure.stage)}: {printable(failure.kind)}: {said}"
    if not trial.measured:
        return Kind.FAILED, "nothing was recorded"
    if not trial.fidelity.full:
        return Kind.PARTLY, fidelity_in_words(trial.fidelity)
    base = front.baseline or trial
    if beyond := broken(front.constraints, trial, base):
        mine, other = (
            (figures(trial), figures(base)) if trial.test else (trial.metrics, base.metrics)
        )
        return Kind.INFEASIBLE, "; ".join(_miss(front, c, mine, other) for c in beyond)
    if trial.status is TrialStatus.INFEASIBLE:
        return Kind.INFEASIBLE, "the search found it outside of a constraint"
    return Kind.DOMINATED, _dominated_by(front, trial, members)


def _costs(front: Front, trial: Trial) -> list[float]:
    return [o.cost(figures(trial)) for o in front.objectives]


def _dominated_by(front: Front, trial: Trial, members: NDArray[np.float64]) -> str:
    mine = np.array(_costs(front, trial))
    if not np.isfinite(mine).all():
        return "one of its figures is not a number"
    if not len(members):
        return ""
    better = np.flatnonzero((members <= mine).all(axis=1) & (members < mine).any(axis=1))
    if not len(better):
        return ""
    number = front.members[int(better[0])].number
    name = f"trial {number}" if number else "the untouched model"
    return f"{name} is nowhere worse and somewhere better"


def _miss(front: Front, constraint: Constraint, mine: Metrics, base: Metrics) -> str:
    """'size of the files 420 kB, 40.0% above 300 kB'."""
    metric = front.catalogue[constraint.metric]
    found, bound = (value(metric, v) for v in (mine[metric.name].mean, constraint.bound(base)))
    by, side = constraint.violation(mine, base), "below" if constraint.at_least else "above"
    return f"{metric_words(metric)} {found}, {by:.{1 if by < 10 else 0}%} {side} {bound}"
