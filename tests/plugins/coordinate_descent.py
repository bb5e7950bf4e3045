"""A searcher that needs numbers: coordinate descent in the unit cube of a pipeline's parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from petra.core.pipeline import Pipeline
from petra.core.trial import Origin, Trial
from petra.search.base import Problem, Searcher, Suggestion
from petra.search.options import SearchOptions, option
from petra.search.scaling import scale
from petra.space.domains import Integer

# In units of the cube. The first step reaches the ends of every interval and every choice.
STEPS = (1.5, 0.3, 0.1, 0.03)


@dataclass(frozen=True)
class CoordinateOptions(SearchOptions):
    """Options of `CoordinateDescent`."""

    draws: int = option(16, Integer(1, 10_000), "random pipelines before the descent begins")


class CoordinateDescent(Searcher):
    """Steps along one number at a time from the pipeline of the least sum of costs, large steps
    first; from a better one as soon as there is one. The order of stages stays as it was drawn.
    """

    Options = CoordinateOptions
    stream = "coordinate"

    def __init__(
        self, problem: Problem, baseline: Trial, options: CoordinateOptions | None = None
    ) -> None:
        super().__init__(problem, baseline)
        self.options = options or CoordinateOptions()
        self.scaling = scale(problem.objectives, problem.constraints, baseline)
        self.best: Trial | None = None

    def score(self, trial: Trial) -> tuple[float, float]:
        """What is descended: the violation of the constraints, then the sum of costs."""
        return self.scaling.violation(trial), float(self.scaling.costs(trial).sum())

    def learn(self, trial: Trial) -> None:
        if not self.scaling.usable(trial):
            return
        if self.best is None or self.score(trial) < self.score(self.best):
            self.best = trial

    def suggest(self, rng: np.random.Generator) -> Suggestion | None:
        if self.number <= self.options.draws or self.best is None:
            return Suggestion(self.problem.space.sample(rng), Origin(("draw",)))
        child = next((p for p in self._steps(self.best.pipeline) if self.is_new(p)), None)
        return child and Suggestion(child, Origin(("coordinate",), self.best.number))

    def _steps(self, pipeline: Pipeline) -> Iterator[Pipeline]:
        for step in STEPS:
            for at, stage in enumerate(pipeline):
                card = self.problem.space.cards[stage.kind]
                numbers = card.encode(stage)
                for i in range(card.width):
                    for moved in (numbers[i] + step, numbers[i] - step):
                        child = card.decode((*numbers[:i], moved, *numbers[i + 1 :]))
                        stages = (*pipeline.stages[:at], child, *pipeline.stages[at + 1 :])
                        yield Pipeline(stages)
