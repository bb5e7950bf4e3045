"""Random search: the yardstick every other searcher is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from petra.core.rng import generator
from petra.core.trial import Origin, Proposal, Trial
from petra.search.base import Problem, Searcher
from petra.search.options import SearchOptions, option
from petra.space.domains import Integer

TRIES = 200  # draws for one proposal before the space counts as used up


@dataclass(frozen=True)
class UniformOptions(SearchOptions):
    """Options of `UniformSearcher`."""

    generation: int = option(8, Integer(1, 10_000), "pipelines proposed at a time")


class UniformSearcher(Searcher):
    """Pipelines drawn by `Space.sample`, never the same one twice.

    Proposal k depends on (seed, k) and on earlier proposals only through de-duplication, so neither
    results nor the generation size change it. When it helps: as a baseline, with many workers, or
    to look around. When it does not: wherever good pipelines are rare.
    """

    Options = UniformOptions

    def __init__(
        self, problem: Problem, baseline: Trial, options: UniformOptions | None = None
    ) -> None:
        super().__init__(problem, baseline)
        self.options = options or UniformOptions()
        self._proposed = {baseline.pipeline.key}
        self._next = 1

    def ask(self) -> list[Proposal]:
        proposals: list[Proposal] = []
        for pipeline in self.problem.initial if self._next == 1 else ():
            proposals.append(Proposal(self._next, pipeline, Origin("given")))
            self._proposed.add(pipeline.key)
            self._next += 1
        while len(proposals) < self.options.generation and not self.stop_reason:
            rng = generator(self.problem.seed, "uniform", self._next)
            for _ in range(TRIES):
                pipeline = self.problem.space.sample(rng)
                if pipeline.key not in self._proposed:
                    proposals.append(Proposal(self._next, pipeline, Origin("random")))
                    self._proposed.add(pipeline.key)
                    self._next += 1
                    break
            else:
                self.stop_reason = "no new pipeline found: the space is used up"
        return proposals

    def tell(self, trials: Sequence[Trial]) -> None:
        """Results do not change what comes next."""
