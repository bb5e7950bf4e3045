"""Surrogate-ranked search: hundreds of moves and draws for every proposal, of which a cheap model
picks the one that can be expected to add the most hypervolume.

Gaussian processes over features of pipelines (`petra.space.encoding`) predict costs and failures;
expected hypervolume improvement, in closed form, with the probability of feasibility (Emmerich et
al. 2006; Schonlau et al. 1998), ranks; what is under way counts as if it had come out as predicted
(the believer of Ginsbourger et al. 2010). One proposal in `explore` is evolution's.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from petra.core.pipeline import Pipeline
from petra.core.trial import Proposal, Trial
from petra.moo.selection import survivors
from petra.search.base import Problem, Searcher, Suggestion
from petra.search.duplicates import Duplicates
from petra.search.evolution import EvolutionOptions, EvolutionSearcher
from petra.search.options import SearchOptions, option
from petra.search.scaling import scale
from petra.search.steps import StepSizes
from petra.search.surrogate.belief import Beliefs, Prospects
from petra.search.surrogate.candidates import Candidate, Candidates, Parent
from petra.search.surrogate.memory import Memory, Table
from petra.search.surrogate.quantities import limits, quantities
from petra.space.domains import BOOLEAN, Integer
from petra.space.encoding import Encoding
from petra.space.table import MOVES

Floats = NDArray[np.float64]
FOUNDERS = 5  # the first proposals, which nothing is known for, are evolution's
BEST = 8  # candidates that are improved further, in each round
# Members of the front that improvement is measured against, by the number of objectives: boxes
# become many.
MOST_FRONT = {1: 1, 2: 120, 3: 100, 4: 40}
FEW_FRONT = 16


@dataclass(frozen=True)
class SurrogateOptions(SearchOptions):
    """Options of `SurrogateSearcher`."""

    candidates: int = option(100, Integer(1, 100_000), "children and draws ranked first")
    rounds: int = option(2, Integer(0, 100), "times that the best candidates' children are ranked")
    explore: int = option(8, Integer(0, 10_000), "one proposal in so many is evolution's; 0: none")
    recombine: bool = option(True, BOOLEAN, "whether pairs of pipelines have children")
    adapt_steps: bool = option(True, BOOLEAN, "whether the length of steps follows their success")
    spare_duplicates: bool = option(
        True, BOOLEAN, "whether pipelines that differ in nothing that matters are left out"
    )


@cache
def _libraries() -> ThreadpoolController:
    """Those for linear algebra that have been loaded."""
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[object]:
    """Linear algebra on one thread: matrices here are small, other cores build candidates
    meanwhile, and how many there are changes no last digit.
    """
    limited: AbstractContextManager[object] = _libraries().limit(limits=1, user_api="blas")
    return limited


class SurrogateSearcher(Searcher):
    """The default search.

    When it helps: whenever an evaluation takes longer than the tens of milliseconds that a proposal
    takes. When it does not: evaluations of milliseconds; costs that features of a pipeline say
    nothing about, where it is as good as its moves. Costs O(n^3) up to a few hundred trials, then
    the same however many there are.
    """

    Options = SurrogateOptions
    stream = "surrogate"

    def __init__(
        self, problem: Problem, baseline: Trial, options: SurrogateOptions | None = None
    ) -> None:
        super().__init__(problem, baseline)
        self.options = options or SurrogateOptions()
        self.scaling = scale(problem.objectives, problem.constraints, baseline)
        what = quantities(problem.objectives, problem.constraints)
        self.memory = Memory(Encoding(problem.space), self.scaling, what, problem.prior)
        self.beliefs = Beliefs(self.memory, limits(what, problem.constraints, self.scaling))
        self.steps = StepSizes(problem.space)
        self.duplicates = Duplicates()
        moves = [m for m in MOVES.all() if self.options.recombine or m.reach != "recombining"]
        self.candidates = Candidates(problem.space, moves, self.steps)
        self.evolution = EvolutionSearcher(problem, baseline, EvolutionOptions())
        self.archive = self.evolution.archive  # the front of all trials told
        self._pending: dict[int, Pipeline] = {}
        self._told: dict[int, Pipeline] = {baseline.number: baseline.pipeline}
        self.memory.add(baseline)

    def note(self, proposal: Proposal) -> None:
        self.evolution.restore(proposal)
        self._pending[proposal.number] = proposal.pipeline
        self.duplicates.propose(proposal.number, proposal.pipeline)

    def learn(self, trial: Trial) -> None:
        del self._pending[trial.number]
        self.evolution.tell(trial)
        self.memory.add(trial)
        self.duplicates.learn(trial)
        worthy = trial.number in self.archive.members
        parent = self._told.get(-1 if trial.origin.parent is None else trial.origin.parent)
        if parent is not None and self.options.adapt_steps:
            self.steps.learn(parent, trial.pipeline, worthy=worthy)
        self._told[trial.number] = trial.pipeline

    def suggest(self, rng: np.random.Generator) -> Suggestion | None:
        with one_thread():
            return self._suggest(rng)

    def _suggest(self, rng: np.random.Generator) -> Suggestion | None:
        explore = self.options.explore and self.number % self.options.explore == 0
        if self.number <= FOUNDERS or explore:
            return self.evolution.suggest(rng)
        found = self._best(rng)
        return found or self.evolution.suggest(rng)

    def _best(self, rng: np.random.Generator) -> Suggestion | None:
        """The most promising of many candidates."""
        good = sorted({*self.archive.members, *self.evolution.population})
        parents = [Parent(n, self._told[n]) for n in good]
        pool = self.candidates.first(self.options.candidates, parents, self.is_new, rng)
        if not pool:
            return None
        prospects = self._prospects()
        scores = prospects.score(self._rows(pool))
        for _ in range(self.options.rounds):
            best = [pool[int(i)] for i in best_first(scores)[:BEST]]
            count = self.options.candidates // 2
            more = self.candidates.further(count, best, parents, self.is_new, rng)
            if more:
                pool = [*pool, *more]
                scores = np.concatenate([scores, prospects.score(self._rows(more))])
        for i in best_first(scores):
            chosen = pool[int(i)]
            if not (self.options.spare_duplicates and self.duplicates.repeats(chosen.pipeline)):
                return Suggestion(chosen.pipeline, chosen.origin)
        return None

    def _rows(self, pool: list[Candidate]) -> Table:
        return self.memory.table([c.pipeline for c in pool])

    def _prospects(self) -> Prospects:
        feasible = self.archive.violation == 0
        front = self.archive.costs if feasible else np.empty((0, len(self.scaling.reference)))
        reference = self.scaling.reference
        if len(front) and not (front < reference).all(axis=1).any():
            # Nothing is in the region of interest yet: go on from where we are.
            reference = np.maximum(reference, front.max(axis=0) * 1.1 + 0.1)
        inside = front[(front < reference).all(axis=1)]
        most = MOST_FRONT.get(len(reference), FEW_FRONT)
        if len(inside) > most:
            inside = inside[survivors(inside, most, reference=reference)]
        pending = self.memory.table(list(self._pending.values()))
        return Prospects(self.beliefs, inside, reference, pending, feasible=feasible)


def best_first(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """Places of `scores` (n,), the highest first. What differs by less than a millionth of the
    largest stays in order: candidates with the same features do, by how sums are rounded, which
    depends on where arrays lie in memory.
    """
    largest = float(np.abs(scores).max(initial=0.0, where=np.isfinite(scores))) or 1.0
    return np.argsort(-np.round(scores / largest, 6), kind="stable")
