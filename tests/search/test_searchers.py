"""Every searcher of the table passes the conformance suite, and the suite rejects searchers that
break a promise.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import Proposal, Trial
from petra.search.base import Problem, Searcher
from petra.search.table import SEARCHERS, make_searcher
from petra.search.uniform import UniformSearcher
from petra.testing.search_suite import SearcherSuite


class TestUniform(SearcherSuite):
    def make(self, problem: Problem, baseline: Trial) -> Searcher:
        return make_searcher("uniform", {}, problem, baseline)


class TestEvolution(SearcherSuite):
    def make(self, problem: Problem, baseline: Trial) -> Searcher:
        return make_searcher("evolution", {}, problem, baseline)


class TestSmallEvolution(SearcherSuite):
    def make(self, problem: Problem, baseline: Trial) -> Searcher:
        return make_searcher(
            "evolution", {"population": 2, "offspring": 3, "stagnation": 0}, problem, baseline
        )


def test_every_searcher_of_the_table_is_tested_here() -> None:
    assert set(SEARCHERS) == {"uniform", "evolution"}


class Repeats(UniformSearcher):
    def ask(self) -> list[Proposal]:
        self._proposed.clear()
        self.problem = replace(self.problem, space=replace(self.problem.space, max_length=1))
        return super().ask()


class Misnumbers(UniformSearcher):
    def ask(self) -> list[Proposal]:
        return [replace(p, number=p.number + 1) for p in super().ask()]


class Illegal(UniformSearcher):
    def ask(self) -> list[Proposal]:
        first, *others = super().ask()
        return [replace(first, pipeline=Pipeline((StageSpec("half"), StageSpec("tune")))), *others]


class LooksAtTheClock(UniformSearcher):
    def tell(self, trials: Sequence[Trial]) -> None:
        late = max(trials, key=lambda t: t.finished_at)
        self.problem = replace(self.problem, seed=late.number)


class UsesGlobalState(UniformSearcher):
    def ask(self) -> list[Proposal]:
        self.problem = replace(
            self.problem, seed=int(np.random.randint(1000)) + random.randrange(10)
        )
        return super().ask()


class IgnoresTheSeed(UniformSearcher):
    def ask(self) -> list[Proposal]:
        self.problem = replace(self.problem, seed=0)
        return super().ask()


class ChokesOnFailure(UniformSearcher):
    def tell(self, trials: Sequence[Trial]) -> None:
        min(t.metrics["quality"].mean for t in trials)


class SortsItsInput(UniformSearcher):
    def tell(self, trials: Sequence[Trial]) -> None:
        assert isinstance(trials, list)
        trials.sort(key=lambda t: t.pipeline.key)


class NeverStops(UniformSearcher):
    def ask(self) -> list[Proposal]:
        return super().ask() or [Proposal(self._next, Pipeline((StageSpec("tune"),)))]


BAD = [
    (Repeats, "test_proposals_are_legal_new_and_numbered"),
    (Misnumbers, "test_proposals_are_legal_new_and_numbered"),
    (Illegal, "test_proposals_are_legal_new_and_numbered"),
    (LooksAtTheClock, "test_workers_do_not_matter"),
    (UsesGlobalState, "test_global_random_state_is_neither_used_nor_changed"),
    (UsesGlobalState, "test_replaying_recorded_results_proposes_the_same"),
    (IgnoresTheSeed, "test_seeds_matter"),
    (ChokesOnFailure, "test_one_generation_in_which_everything_fails"),
    (ChokesOnFailure, "test_nothing_ever_succeeds"),
    (SortsItsInput, "test_inputs_are_not_changed"),
    (NeverStops, "test_ends_with_a_reason_when_the_space_is_used_up"),
]


@pytest.mark.parametrize(
    ("bad", "test"), BAD, ids=lambda x: x if isinstance(x, str) else x.__name__
)
def test_the_suite_catches(bad: type[Searcher], test: str) -> None:
    class Suite(SearcherSuite):
        def make(self, problem: Problem, baseline: Trial) -> Searcher:
            return bad(problem, baseline)

    check = getattr(Suite(), test)
    with pytest.raises((AssertionError, KeyError, ValueError, IndexError)):
        check(workers=8) if test == "test_workers_do_not_matter" else check()
