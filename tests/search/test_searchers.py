"""Every searcher of the table passes the conformance suite, and the suite rejects searchers that
break a promise.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import FULL, GIVEN, Fidelity, Proposal, Trial
from petra.search.base import Problem, Searcher, Suggestion
from petra.search.table import SEARCHERS, make_searcher
from petra.search.uniform import UniformSearcher
from petra.testing.search_suite import SearcherSuite


class TestUniform(SearcherSuite):
    def make(self, problem: Problem, baseline: Trial) -> Searcher:
        return make_searcher("uniform", {}, problem, baseline)


class TestEvolution(SearcherSuite):
    def make(self, problem: Problem, baseline: Trial) -> Searcher:
        return make_searcher("evolution", {}, problem, baseline)


class TestSurrogate(SearcherSuite):
    def make(self, problem: Problem, baseline: Trial) -> Searcher:
        few = {"candidates": 30, "rounds": 1}
        return make_searcher("surrogate", few, problem, baseline)


class TestSmallEvolution(SearcherSuite):
    def make(self, problem: Problem, baseline: Trial) -> Searcher:
        return make_searcher("evolution", {"population": 2, "offspring": 3}, problem, baseline)


class TestAsha(SearcherSuite):
    def make(self, problem: Problem, baseline: Trial) -> Searcher:
        return make_searcher("asha", {}, problem, baseline)


def test_every_searcher_of_the_table_is_tested_here() -> None:
    elsewhere = {"bayes", "optuna", "structure_first"}  # in the files of these names
    assert set(SEARCHERS) == {"surrogate", "uniform", "evolution", "asha"} | elsewhere


class Repeats(UniformSearcher):
    def is_new(self, pipeline: Pipeline, fidelity: Fidelity = FULL) -> bool:
        return True

    def suggest(self, rng: np.random.Generator) -> Suggestion:
        rng = np.random.default_rng(int(rng.integers(5)))
        return super().suggest(rng)


class Misnumbers(UniformSearcher):
    def note(self, proposal: Proposal) -> None:
        self.number += 1


class Illegal(UniformSearcher):
    def suggest(self, rng: np.random.Generator) -> Suggestion:
        return Suggestion(Pipeline((StageSpec("half"), StageSpec("tune"))), GIVEN)


class LooksAtTheClock(UniformSearcher):
    late = 0.0

    def learn(self, trial: Trial) -> None:
        if trial.finished_at > self.late:
            self.late = trial.finished_at
            self.problem = replace(self.problem, seed=trial.number)


class UsesGlobalState(UniformSearcher):
    def suggest(self, rng: np.random.Generator) -> Suggestion:
        return super().suggest(np.random.default_rng(int(np.random.randint(1000))))


class IgnoresTheSeed(UniformSearcher):
    def __init__(self, problem: Problem, baseline: Trial) -> None:
        super().__init__(replace(problem, seed=0), baseline)


class ChokesOnFailure(UniformSearcher):
    def learn(self, trial: Trial) -> None:
        _ = trial.metrics["quality"].mean


class ChangesWhatItIsTold(UniformSearcher):
    def learn(self, trial: Trial) -> None:
        assert isinstance(trial.metrics, dict)
        trial.metrics.clear()


class RemembersWhatItSuggested(UniformSearcher):
    """Its state is lost when the study is continued."""

    suggested = 0

    def suggest(self, rng: np.random.Generator) -> Suggestion:
        self.suggested += 1
        return super().suggest(np.random.default_rng([self.suggested, self.number]))


class PrefersItsOwn(UniformSearcher):
    def _given(self) -> Suggestion | None:
        return None


class NeverStops(UniformSearcher):
    def _fresh(self) -> Suggestion | None:
        return super()._fresh() or Suggestion(Pipeline((StageSpec("tune"),)), GIVEN)


BAD = [
    (Repeats, "test_proposals_are_legal_new_and_numbered"),
    (Misnumbers, "test_proposals_are_legal_new_and_numbered"),
    (Illegal, "test_proposals_are_legal_new_and_numbered"),
    (LooksAtTheClock, "test_workers_do_not_matter"),
    (UsesGlobalState, "test_global_random_state_is_neither_used_nor_changed"),
    (UsesGlobalState, "test_replaying_recorded_results_proposes_the_same"),
    (RemembersWhatItSuggested, "test_a_search_that_was_cut_off_goes_on_as_if_it_had_not_been"),
    (PrefersItsOwn, "test_initial_pipelines_come_first"),
    (Misnumbers, "test_proposals_say_what_they_were_made_from"),
    (IgnoresTheSeed, "test_seeds_matter"),
    (ChokesOnFailure, "test_a_beginning_in_which_everything_fails"),
    (ChokesOnFailure, "test_nothing_ever_succeeds"),
    (ChangesWhatItIsTold, "test_inputs_are_not_changed"),
    (NeverStops, "test_ends_with_a_reason_when_the_space_is_used_up"),
]


ARGUMENTS = {
    "test_workers_do_not_matter": (8,),
    "test_a_search_that_was_cut_off_goes_on_as_if_it_had_not_been": (20,),
}


@pytest.mark.parametrize(
    ("bad", "test"), BAD, ids=lambda x: x if isinstance(x, str) else x.__name__
)
def test_the_suite_catches(bad: type[Searcher], test: str) -> None:
    class Suite(SearcherSuite):
        def make(self, problem: Problem, baseline: Trial) -> Searcher:
            return bad(problem, baseline)

    check = getattr(Suite(), test)
    with pytest.raises((AssertionError, KeyError, ValueError, IndexError)):
        check(*ARGUMENTS.get(test, ()))
