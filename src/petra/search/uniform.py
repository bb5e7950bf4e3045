"""Random search: the yardstick every other searcher is measured against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from petra.core.trial import Trial
from petra.search.base import RANDOM, Problem, Searcher, Suggestion
from petra.search.options import SearchOptions, option
from petra.space.domains import Integer


@dataclass(frozen=True)
class UniformOptions(SearchOptions):
    """Options of `UniformSearcher`."""

    generation: int = option(8, Integer(1, 10_000), "trials that are called a generation")


class UniformSearcher(Searcher):
    """Pipelines drawn by `Space.sample`, never the same one twice.

    Proposal k depends on (seed, k) and on earlier proposals only through de-duplication, so results
    do not change it. When it helps: as a baseline, with many workers, or to look around. When it
    does not: wherever good pipelines are rare.
    """

    Options = UniformOptions
    stream = "uniform"

    def __init__(
        self, problem: Problem, baseline: Trial, options: UniformOptions | None = None
    ) -> None:
        super().__init__(problem, baseline)
        self.options = options or UniformOptions()

    @property
    def generation(self) -> int:
        return self.options.generation

    def suggest(self, rng: np.random.Generator) -> Suggestion:
        return Suggestion(self.problem.space.sample(rng), RANDOM)
