"""Linear models of costs, learnt from trials of several studies (ridge regression)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from petra.core.metric import describe
from petra.core.objective import Objective
from petra.core.trial import Trial
from petra.search.prior import WORKS, Linear, Prior, features
from petra.search.scaling import Scaling

Floats = NDArray[np.float64]
LEAST = 12  # trials that have a quantity, of one study, or nothing is learnt of it there
SEEN = 5  # pipelines that have a feature, or it is left out
STRENGTH = 20.0  # of the ridge, in trials: a feature seen in so many gets half of its slope
FLOOR = 0.02  # losses of the task's metric are told apart down to this share of the baseline's


@dataclass(frozen=True)
class Lesson:
    """One pipeline of a study: its features, and its costs by quantity."""

    features: Mapping[str, float]
    costs: Mapping[str, float]


@dataclass(frozen=True)
class Course:
    """Lessons of one study, and what it is worth, from 0 to 1."""

    lessons: tuple[Lesson, ...]
    worth: float = 1.0
    without: frozenset[str] = field(default_factory=frozenset)  # quantities that do not carry over


def lessons(trials: Iterable[Trial], scaling: Scaling) -> tuple[Lesson, ...]:
    """What the trials of one study teach about the objectives of `scaling`."""
    found = []
    for trial in trials:
        costs = {}
        if trial.failed or trial.measured:
            costs[WORKS] = float(trial.measured)
        for objective in scaling.objectives:
            cost = _cost(objective, trial, scaling)
            if cost is not None:
                costs[objective.metric] = cost
        if trial.number and costs:
            found.append(Lesson(features(trial.pipeline), costs))
    return tuple(found)


def _cost(objective: Objective, trial: Trial, scaling: Scaling) -> float | None:
    """On a logarithmic scale; of what does not depend on training also from a screened trial."""
    name = objective.metric
    if name not in trial.metrics or trial.failed:
        return None
    if not trial.comparable and describe(name).sampled:
        return None
    cost = scaling.cost(objective, trial.metrics[name].mean)
    if describe(name).scale == "share":
        cost = max(cost, 0.0) + FLOOR
    return math.log(cost) if cost > 0 and math.isfinite(cost) else None


def learn(courses: Sequence[Course], before: Prior | None = None) -> Prior:
    """The prior after these courses; `before` is what was believed without them, and counts for
    as much as it agrees with them.
    """
    names = {name for course in courses for lesson in course.lessons for name in lesson.costs}
    models = dict(before.models) if before else {}
    for name in sorted(names):
        known = models.get(name)
        learnt = _model(name, courses, known)
        if learnt is not None:
            models[name] = learnt
    return Prior(models)


def _model(name: str, courses: Sequence[Course], before: Linear | None) -> Linear | None:
    """Of one quantity; None where there is too little to learn from."""
    rows: list[Mapping[str, float]] = []
    targets: list[float] = []
    weights: list[float] = []
    for course in courses:
        mine = [] if name in course.without else [x for x in course.lessons if name in x.costs]
        costs = np.array([lesson.costs[name] for lesson in mine])
        if len(mine) < LEAST or not costs.std() > 1e-9 or course.worth <= 0:
            continue
        rows += [lesson.features for lesson in mine]
        targets += list((costs - costs.mean()) / costs.std())
        weights += [course.worth] * len(mine)
    if not rows:
        return None
    y, w = np.array(targets), np.array(weights)
    if before is None:
        return _ridge(rows, y, w)
    opinions = np.array([before.predict(row) for row in rows])
    opinions -= np.average(opinions, weights=w)
    agreement = float((w * opinions * y).sum() / max((w * opinions**2).sum(), 1e-9))
    share = min(max(agreement, 0.0), 1.0)
    return _ridge(rows, y - share * opinions, w).plus(before, share)


def _ridge(rows: Sequence[Mapping[str, float]], y: Floats, weights: Floats) -> Linear:
    """Features are centred and scaled where they are present, and 0 where not."""
    seen: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            seen.setdefault(name, []).append(value)
    names = sorted(name for name, present in seen.items() if len(present) >= SEEN)
    index = {name: i for i, name in enumerate(names)}
    values = np.zeros((len(rows), len(names)))
    here = np.zeros_like(values, dtype=bool)
    for i, row in enumerate(rows):
        for name, value in row.items():
            if name in index:
                values[i, index[name]], here[i, index[name]] = value, True
    slopes, offsets = np.ones(len(names)), np.zeros(len(names))
    for j in range(len(names)):
        present = values[here[:, j], j]
        spread = float(present.std())
        if spread > 1e-9:  # a number; else only whether it is there counts
            slopes[j], offsets[j] = 1 / spread, -float(present.mean()) / spread
    x = np.where(here, values * slopes + offsets, 0.0)
    gram = (x.T * weights) @ x + STRENGTH * np.eye(len(names))
    found = np.linalg.solve(gram, x.T @ (weights * y))
    return Linear(
        {n: (float(found[j] * slopes[j]), float(found[j] * offsets[j])) for n, j in index.items()}
    )
