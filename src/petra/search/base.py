"""The search contract: ask for one proposal at a time, tell results one at a time.

`Searcher` numbers the proposals, hands out the initial pipelines first, lets no pipeline through
twice and says when the space is used up; what it leaves to a subclass is to suggest a pipeline and
to learn from a result. Which results are told before which proposal is `petra.search.schedule`'s
to decide, so proposals never depend on the number of workers or on who finished first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from petra.core.objective import Constraint, Objective
from petra.core.pipeline import Pipeline
from petra.core.rng import generator
from petra.core.trial import FULL, GIVEN, PAST, RECIPE, Fidelity, Origin, Proposal, Trial
from petra.search.options import SearchOptions
from petra.search.prior import Prior
from petra.space.space import Space

TRIES = 100  # suggestions, and then random draws, for one proposal before the space is used up
USED_UP = "no new pipeline found: the space is used up"
RANDOM = Origin(("random",))


@dataclass(frozen=True)
class Problem:
    """What every searcher is given. `initial` are distinct legal pipelines that it proposes before
    any of its own, the user's first; `recipes` are those of them that are petra's, `past` those of
    past studies. `prior` is what is believed of pipelines before any was tried.
    """

    space: Space
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    seed: int = 0
    initial: tuple[Pipeline, ...] = ()
    recipes: tuple[Pipeline, ...] = ()
    past: tuple[Pipeline, ...] = ()
    prior: Prior | None = None

    def origin(self, initial: Pipeline) -> Origin:
        """Where one of `initial` came from."""
        if initial in self.past:
            return PAST
        return RECIPE if initial in self.recipes else GIVEN


@dataclass(frozen=True)
class Suggestion:
    """A pipeline that a searcher would like to see tried, and at which fidelity."""

    pipeline: Pipeline
    origin: Origin
    fidelity: Fidelity = FULL


class Searcher(ABC):
    """Proposes pipelines: a function of the problem, the options and, in this order, what it was
    told and what it proposed. None of it is ever saved: `restore` and `tell` make it anew.

    A subclass writes `suggest`, and where it needs them `learn` and `note`. `Options` is the frozen
    dataclass of its options, `stream` the name of its random numbers, `stop_reason` says why there
    are no more proposals ('' while there are).
    """

    Options: ClassVar[type[SearchOptions]] = SearchOptions
    stream: ClassVar[str] = "search"

    def __init__(
        self, problem: Problem, baseline: Trial, options: SearchOptions | None = None
    ) -> None:
        """`baseline` is trial 0, the untouched model, already measured; proposals are numbered from
        1.
        """
        self.problem = problem
        self.baseline = baseline
        self.stop_reason = ""
        self.number = 1  # of the next proposal
        self._initial = deque(problem.initial)
        self._proposed = {(baseline.pipeline.key, FULL)}
        self._awaited: dict[int, Pipeline] = {}
        self._news: list[int] = []

    # ---- what a subclass writes

    @classmethod  # noqa: B027 - most need none
    def check_installed(cls) -> None:
        """Raise MissingExtra where a library that the searcher needs is not installed."""

    @property
    def generation(self) -> int:
        """How many trials are called one: what `budget.generations` counts."""
        return 8

    @abstractmethod
    def suggest(self, rng: np.random.Generator) -> Suggestion | None:
        """A pipeline for proposal `self.number`; None when the searcher has no idea.

        Called again, with the same generator, when the pipeline has been proposed before. Must
        change nothing that later suggestions depend on: `learn` and `note` are for that.
        """

    def learn(self, trial: Trial) -> None:  # noqa: B027 - most searchers have something to do here
        """A result, failed or measured at any fidelity. Comes once for each proposal."""

    def note(self, proposal: Proposal) -> None:  # noqa: B027
        """A proposal was made, now or in an earlier session; its result comes later."""

    def is_new(self, pipeline: Pipeline, fidelity: Fidelity = FULL) -> bool:
        """Whether it has never been proposed, and is not the untouched model."""
        return (pipeline.key, fidelity) not in self._proposed

    # ---- what everybody else calls

    @final
    def ask(self) -> Proposal | None:
        """The next proposal: legal, and never made before. None, now and ever after, when the
        search has ended; `stop_reason` says why.
        """
        if self.stop_reason:
            return None
        made = self._given() or self._fresh()
        if made is None:
            self.stop_reason = USED_UP
            return None
        told = tuple(self._news)
        proposal = Proposal(self.number, made.pipeline, made.origin, made.fidelity, told)
        self._take(proposal)
        return proposal

    @final
    def restore(self, proposal: Proposal) -> None:
        """Take a proposal of an earlier session as made, whatever this searcher would have
        suggested. What it was `told` must have been told.
        """
        self._take(proposal)

    @final
    def tell(self, trial: Trial) -> None:
        """The result of a proposal. Raises ValueError when it was never proposed, or told."""
        if self._awaited.get(trial.number) != trial.pipeline:
            raise ValueError(f"trial {trial.number} was not proposed, or has been told already")
        del self._awaited[trial.number]
        self._news.append(trial.number)
        self.learn(trial)

    def _take(self, proposal: Proposal) -> None:
        self._proposed.add((proposal.pipeline.key, proposal.fidelity))
        self._awaited[proposal.number] = proposal.pipeline
        self._news.clear()
        self.number = proposal.number + 1
        self.note(proposal)

    def _given(self) -> Suggestion | None:
        while self._initial:
            pipeline = self._initial.popleft()
            if self.is_new(pipeline):
                return Suggestion(pipeline, self.problem.origin(pipeline))
        return None

    def _fresh(self) -> Suggestion | None:
        rng = generator(self.problem.seed, self.stream, self.number)
        for _ in range(TRIES):
            made = self.suggest(rng)
            if made is None:
                break
            if self.is_new(made.pipeline, made.fidelity):
                return made
        for _ in range(TRIES):
            pipeline = self.problem.space.sample(rng)
            if self.is_new(pipeline):
                return Suggestion(pipeline, RANDOM)
        return None
