"""The report's charts: every measured trial by two objectives, or by one, and how the search went.

No colour says what a shape does not say too. Members of the front are links to their trials; the
page's script finds the others by their place.
"""

from __future__ import annotations

from petra.core.metric import describe
from petra.core.objective import Objective
from petra.core.trial import Trial
from petra.front import figures
from petra.report import svg
from petra.report.chart_parts import (
    Drawn,
    attainable,
    bounds,
    cloud,
    errors,
    in_words,
    objective_axis,
    place_data,
    points,
    value_on,
)
from petra.report.history import Reached
from petra.report.metric_text import metric_words
from petra.report.verdicts import Kind


def pair_chart(drawn: Drawn, x: Objective, y: Objective, *, whole: bool = False) -> str:
    """One pair of objectives: the part of the plane around the front, or the `whole` of it."""
    front = drawn.front
    across = objective_axis(front, x, svg.x_axis, whole=whole)
    upward = objective_axis(front, y, svg.y_axis, whole=whole)

    def at(trial: Trial) -> tuple[float, float]:
        return across.at(value_on(trial, x)), upward.at(value_on(trial, y))

    seen = [
        t
        for t in front.trials
        if t.comparable and across.holds(value_on(t, x)) and upward.holds(value_on(t, y))
    ]
    members = [t for t in seen if t.number and drawn.is_a(t, Kind.FRONT)]
    limits, covered = bounds(front, x, y, across, upward)
    parts = [
        svg.frame(across, upward),
        limits,
        cloud(drawn, seen, at),
        svg.path("stairs", svg.stairs([at(t) for t in attainable(front, x, y)])),
        errors(members, y, at, upward) if describe(y.metric).sampled else "",
        points(drawn, seen, at, (x, y), covered),
    ]
    data = place_data(front, x, y, across, upward)
    return svg.drawing("".join(parts), label=in_words(drawn, x, y), data=data, links=True)


def single_chart(drawn: Drawn) -> str:
    """One objective: every trial's value in the order of trials, and the best so far."""
    front = drawn.front
    (objective,) = front.objectives
    last = max((t.number for t in front.trials), default=0)
    across = svg.x_axis(-0.5, last + 0.5, "trial", lambda v: f"{v:g}" if v % 1 == 0 else "")
    upward = objective_axis(front, objective, svg.y_axis)

    def at(trial: Trial) -> tuple[float, float]:
        return across.at(trial.number), upward.at(value_on(trial, objective))

    measured = [t for t in front.trials if t.comparable]
    seen = [t for t in measured if upward.holds(value_on(t, objective))]
    best: list[tuple[float, float]] = []
    least = float("inf")
    for trial in measured:
        cost = objective.cost(figures(trial))
        if not drawn.is_a(trial, Kind.INFEASIBLE) and cost < least:
            best, least = [*best, at(trial)], cost
    best += [(across.end, best[-1][1])] if best else []
    limits, covered = bounds(front, None, objective, across, upward)
    parts = [
        svg.frame(across, upward),
        limits,
        cloud(drawn, seen, at),
        svg.path("stairs", svg.stairs(best)),
        points(drawn, seen, at, (objective,), covered),
    ]
    label = f"{metric_words(front.catalogue[objective.metric])} of every measured trial, in order"
    data = place_data(front, None, objective, across, upward)
    return svg.drawing("".join(parts), label=label, data=data, links=True)


def hypervolume_chart(reached: Reached, *, over: str) -> str:
    """Hypervolume against 'seconds' of search or the number of finished 'trials'."""
    places = [t.finished_at if over == "seconds" else float(i) for i, (t, _) in enumerate(reached)]
    volumes = [volume for _, volume in reached]
    title = "seconds of search" if over == "seconds" else "finished trials"
    across = svg.x_axis(0.0, max(places) or 1.0, title, lambda v: f"{v:g}")
    top = max(volumes) * 1.08 or 1.0
    upward = svg.y_axis(0.0, top, "hypervolume: more is better", lambda v: f"{v:.6g}")
    steps = [
        (across.at(place), upward.at(volume))
        for i, (place, volume) in enumerate(zip(places, volumes, strict=True))
        if i in (0, len(volumes) - 1) or volume != volumes[i - 1]
    ]
    content = svg.frame(across, upward) + svg.path("line", svg.stairs(steps))
    label = (
        f"Hypervolume against {title}: {volumes[0]:.3g} at first, {volumes[-1]:.3g} in the end"
        f" after {len(volumes) - 1} trials"
    )
    return svg.drawing(content, label=label)
