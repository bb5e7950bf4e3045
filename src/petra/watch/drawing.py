"""Plots as plain data for the page to draw: axes with their ticks, points by kind, lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from petra.core.metric import Metric
from petra.core.objective import Objective
from petra.core.trial import Trial, TrialStatus
from petra.front import Front, figures
from petra.moo.dominance import front_mask
from petra.report import axes
from petra.report.numbers_text import duration, si, value
from petra.report.pipeline_text import pipeline_in_words

MOST_POINTS = 1500  # besides the front; of more, the latest are drawn
_TICKS = 5
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)

Line = list[list[float]]
Where = Callable[[Trial], float]


def front_plots(front: Front, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Every pair of objectives; with a single one, its values in the order of the trials."""
    from petra.report.plots import objective_pairs

    if front.baseline is None:
        return []
    measured = [t for t in trials if t.comparable]
    pairs = objective_pairs(front)
    if pairs:
        return [_pair(front, measured, x, y) for x, y in pairs]
    (objective,) = front.objectives
    numbers = axis("trial", 0, max((t.number for t in trials), default=1), "{:.0f}".format)
    drawn = _plot(front, measured, numbers, _axis(front, objective), lambda t: t.number, objective)
    return [drawn | {"caption": _sentence(f"{_name(front, objective)} of every measured trial.")}]


def volume_plots(reached: Sequence[tuple[Trial, float]]) -> list[dict[str, Any]]:
    """Hypervolume over finished trials and over seconds of search."""
    if len(reached) < 2:
        return []
    last, top = reached[-1][0], max(reached[-1][1], 1e-9)
    high = axis("hypervolume", 0, 1.05 * top, "{:.3g}".format)
    count = len(reached) - 1
    by_count = [[float(i), volume] for i, (_, volume) in enumerate(reached)]
    by_time = [[trial.finished_at, volume] for trial, volume in reached]
    return [
        {
            "caption": "Hypervolume over finished trials.",
            "x": axis("finished trials", 0, max(1, count), "{:.0f}".format, whole=True),
            "y": high,
            "lines": [_steps(by_count)],
        },
        {
            "caption": "Hypervolume over the time of the search.",
            "x": axis("time of search", 0, max(last.finished_at, 1e-9), duration),
            "y": high,
            "lines": [_steps(by_time)],
        },
    ]


def growth(reached: Sequence[tuple[Trial, float]]) -> list[tuple[int, Trial, float]]:
    """Where the hypervolume grew: how many trials had finished, which one, and what it became."""
    before = -1.0
    found = []
    for i, (trial, volume) in enumerate(reached):
        if volume > before:
            found.append((i, trial, volume))
        before = volume
    return found


def axis(
    title: str, low: float, high: float, text: Callable[[float], str], *, whole: bool = False
) -> dict[str, Any]:
    """An axis from `low` to `high` with about five round ticks, integers if `whole`."""
    ticks = [[at, text(at)] for at in round_ticks(low, high, whole=whole)]
    return {"title": title, "low": float(low), "high": float(high), "ticks": ticks}


def round_ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Round numbers within an interval, evenly spaced, at most seven."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    power = 10.0 ** math.floor(math.log10(span / _TICKS))
    step = next(power * s for s in _STEPS if power * s >= span / _TICKS * (1 - 1e-9))
    step = max(1.0, round(step)) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{n * step:.12g}") for n in range(first, last + 1)]


def _pair(front: Front, measured: Sequence[Trial], x: Objective, y: Objective) -> dict[str, Any]:
    drawn = _plot(front, measured, _axis(front, x), _axis(front, y), _value(x), y)
    stairs = _stairs(front, x, y)
    bounds = [
        {"axis": name, "at": bound, "text": str(constraint), "least": constraint.at_least}
        for name, objective in (("x", x), ("y", y))
        for constraint, bound in axes.bounds_on(front, objective)
    ]
    caption = _sentence(f"{_name(front, y)} against {_name(front, x)} of every measured trial.")
    if beyond := axes.outside(front, x, y):
        caption += f" {beyond} lie outside of what is shown."
    return drawn | {"lines": [stairs] if stairs else [], "bounds": bounds, "caption": caption}


def _plot(
    front: Front,
    measured: Sequence[Trial],
    x: dict[str, Any],
    y: dict[str, Any],
    at: Where,
    objective: Objective,
) -> dict[str, Any]:
    """The points of trials, `at` on the x axis, their value of an objective on the y axis."""
    members = {t.number for t in front.members}
    others = [t for t in measured if t.number and t.number not in members]
    shown = [*others[-MOST_POINTS:], *(t for t in measured if not t.number or t.number in members)]
    height = _value(objective)
    points = [
        [at(t), height(t), t.number, _kind(t, members), pipeline_in_words(t.pipeline)]
        for t in shown
        if x["low"] <= at(t) <= x["high"] and y["low"] <= height(t) <= y["high"]
    ]
    return {"x": x, "y": y, "points": points, "left_out": len(measured) - len(shown)}


def _kind(trial: Trial, members: set[int]) -> str:
    if not trial.number:
        return "untouched"
    if trial.number in members:
        return "front"
    return "infeasible" if trial.status is TrialStatus.INFEASIBLE else "dominated"


def _value(objective: Objective) -> Where:
    return lambda trial: figures(trial)[objective.metric].mean


def _name(front: Front, objective: Objective) -> str:
    return front.catalogue[objective.metric].column


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _axis(front: Front, objective: Objective) -> dict[str, Any]:
    metric = front.catalogue[objective.metric]
    better = "more" if objective.maximize else "less"
    title = f"{metric.title}, {better} is better"
    low, high = axes.frame(front, objective)
    return axis(title, low, high, lambda at: _tick(metric, at))


def _tick(metric: Metric, at: float) -> str:
    if metric.form == "si":
        return si(at, metric.unit.partition("/")[0])
    if metric.form == "duration":
        return value(metric, at)
    unit = "x" if metric.form == "ratio" else f" {metric.unit}" if metric.unit else ""
    return f"{at:.6g}{'' if metric.sampled else unit}"


def _stairs(front: Front, x: Objective, y: Objective) -> Line:
    """The border of what the front attains in these two objectives alone."""
    if not front.members:
        return []
    costs = np.array([[o.cost(figures(t)) for o in (x, y)] for t in front.members])
    kept = [t for t, on in zip(front.members, front_mask(costs), strict=True) if on]
    kept.sort(key=lambda t: x.cost(figures(t)))
    return _steps([[_value(x)(t), _value(y)(t)] for t in kept])


def _steps(points: Line) -> Line:
    """A line that goes sideways first and then up or down; where nothing moves it has no corner."""
    found = points[:1]
    for (_, before), (at, now) in pairwise(points):
        if now != before:
            found += [[at, before], [at, now]]
    return found + points[-1:] if points and found[-1] != points[-1] else found
