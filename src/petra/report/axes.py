"""What the axes of a front's plots show: where the front is, and a strip beyond every bound."""

from __future__ import annotations

from itertools import combinations

from petra.core.metric import describe
from petra.core.objective import Constraint, Objective
from petra.core.trial import TrialStatus
from petra.front import Front, figures


def objective_pairs(front: Front) -> list[tuple[Objective, Objective]]:
    """(x, y) for every pair of objectives; what the task measures is on the y axis."""
    pairs = combinations(front.objectives, 2)
    return [(b, a) if describe(a.metric).sampled else (a, b) for a, b in pairs]


def bounds_on(front: Front, objective: Objective) -> list[tuple[Constraint, float]]:
    """The constraints on an objective's metric, with the values that they mean here."""
    base = front.baseline
    return [
        (c, c.bound(base.metrics))
        for c in front.constraints
        if base and c.metric == objective.metric
    ]


def frame(front: Front, objective: Objective) -> tuple[float, float]:
    """What an axis shows at first: feasible trials, the baseline, a strip beyond every bound.

    Trials far outside the constraints would squeeze the front into a corner; they are there when
    zooming out.
    """
    measured = [t for t in front.trials if t.comparable]
    feasible = [t for t in measured if t.status is TrialStatus.COMPLETE and t.number]
    shown = [*feasible, *([front.baseline] if front.baseline else [])] if feasible else measured
    found = [figures(t)[objective.metric] for t in shown]
    values = [m.mean + side * m.stderr for m in found for side in (-1, 1)]  # with the error bars
    bounds = bounds_on(front, objective)
    low, high = (
        pick([*values, *(bound for _, bound in bounds)], default=0.0) for pick in (min, max)
    )
    span = high - low or abs(high) or 1.0
    below = any(c.at_least and bound == low for c, bound in bounds)
    above = any(not c.at_least and bound == high for c, bound in bounds)
    return low - span * (0.3 if below else 0.08), high + span * (0.3 if above else 0.08)


def outside(front: Front, x: Objective, y: Objective) -> int:
    """How many measured trials lie outside the frame of either axis."""
    frames = [(o.metric, *frame(front, o)) for o in (x, y)]
    return sum(
        any(not low <= figures(t)[name].mean <= high for name, low, high in frames)
        for t in front.trials
        if t.comparable
    )
