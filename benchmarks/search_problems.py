"""Problems to compare searchers on: a space, objectives, and what a proposal is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from petra.core.measurement import Measurement
from petra.core.objective import Constraint, Objective
from petra.core.pipeline import Pipeline
from petra.core.trial import Proposal, Trial, TrialStatus
from petra.search.base import Problem
from petra.space.domains import Real
from petra.space.effects import Effects
from petra.space.parameters import Parameter
from petra.space.space import Space, StageCard
from petra.testing.toy import toy_baseline, toy_problem, toy_trial

Vector = NDArray[np.float64]
Function = Callable[[Vector], Vector]


@dataclass(frozen=True)
class Case:
    """One problem: what a searcher is given, the untouched model's trial, and `evaluate`, which
    answers a proposal with a trial (its `seconds` are counted where `timed`).

    `best` is the hypervolume that is attainable, 0 where nobody knows it.
    """

    name: str
    problem: Problem
    baseline: Trial
    evaluate: Callable[[Proposal], Trial]
    best: float = 0.0
    timed: bool = False

    def seeded(self, seed: int) -> Problem:
        """The problem for one run."""
        return replace(self.problem, seed=seed)


def toy() -> Case:
    """Pipelines of seven kinds of stage; three objectives, two of them noisy."""
    return Case("toy", toy_problem(), toy_baseline(), toy_trial)


def tight_toy() -> Case:
    """The same, where one random pipeline in 25 satisfies the constraints."""
    texts = ("quality >= baseline - 0.05", "size <= 300 kB")
    bounds = tuple(map(Constraint.parse, texts))
    problem = toy_problem(constraints=bounds)
    return Case(
        "toy, constrained", problem, toy_baseline(), lambda p: toy_trial(p, constraints=bounds)
    )


def zdt1(x: Vector) -> Vector:
    """Zitzler, Deb & Thiele 2000; (30,) in [0, 1]. Its front is convex."""
    g = 1 + 9 * x[1:].mean()
    return np.array([x[0], g * (1 - np.sqrt(x[0] / g))])


def zdt2(x: Vector) -> Vector:
    """Like `zdt1`; its front is concave."""
    g = 1 + 9 * x[1:].mean()
    return np.array([x[0], g * (1 - (x[0] / g) ** 2)])


def zdt3(x: Vector) -> Vector:
    """Like `zdt1`; its front is in five pieces."""
    g = 1 + 9 * x[1:].mean()
    h = 1 - np.sqrt(x[0] / g) - x[0] / g * np.sin(10 * np.pi * x[0])
    return np.array([x[0], g * h])


def dtlz2(x: Vector) -> Vector:
    """Deb, Thiele, Laumanns & Zitzler 2002; (12,) in [0, 1]; the front is an eighth of a sphere."""
    g = ((x[2:] - 0.5) ** 2).sum()
    a, b = x[0] * np.pi / 2, x[1] * np.pi / 2
    sphere = np.array([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)])
    return np.asarray((1 + g) * sphere)


def continuous(name: str, function: Function, width: int, baseline: Vector, best: float) -> Case:
    """A function of `width` numbers in [0, 1] as a space of one stage. The untouched model costs
    `baseline`; hypervolume is measured below twice that, in units of it.
    """
    unit = Real(0.0, 1.0)
    names = [f"x{i:02d}" for i in range(width)]
    card = StageCard("point", tuple(Parameter(n, 0.5, unit, unit, n) for n in names), Effects())
    space = Space({"point": card}, max_length=1)
    objectives = tuple(Objective(f"f{i + 1}", False) for i in range(len(baseline)))

    def metrics(values: Vector) -> dict[str, Measurement]:
        return {o.metric: Measurement(float(v)) for o, v in zip(objectives, values, strict=True)}

    def evaluate(proposal: Proposal) -> Trial:
        params = proposal.pipeline.stages[0].params
        values = function(np.array([float(params[n]) for n in names]))
        return proposal.ended(TrialStatus.COMPLETE, metrics=metrics(values))

    untouched = Trial(0, Pipeline(), TrialStatus.COMPLETE, metrics=metrics(baseline))
    return Case(name, Problem(space, objectives), untouched, evaluate, best)


def numbers(pipeline: Pipeline) -> Vector:
    """The point of a pipeline of a `continuous` case."""
    stage = pipeline.stages[0]
    return np.array([float(stage.params[n]) for n in sorted(stage.params)])


def _below(front: Vector, baseline: Vector) -> float:
    """Hypervolume of a front (n, 2) below twice the baseline, in units of it."""
    f = front[np.argsort(front[:, 0])] / baseline
    low = np.minimum.accumulate(f[:, 1])
    widths = np.diff(np.append(f[:, 0], 2.0)).clip(0)
    return float((widths * (2.0 - low).clip(0)).sum())


def cases() -> Iterator[Case]:
    """All of them. The attainable hypervolumes of ZDT are those of 100,000 points of the front;
    DTLZ2's is 8 less an eighth of the unit ball, its ratio to the untouched model being 1.
    """
    yield toy()
    yield tight_toy()
    start = np.array([1.0, 3.0])
    x = np.zeros((100_001, 30))
    x[:, 0] = np.linspace(0, 1, len(x))
    for f in (zdt1, zdt2, zdt3):
        front = np.array([f(point) for point in x[::10]])
        yield continuous(f.__name__.upper(), f, 30, start, _below(front, start))
    yield continuous("DTLZ2", dtlz2, 12, np.ones(3), 1 - np.pi / 6 + 7)
