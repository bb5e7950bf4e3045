"""The promises every searcher keeps, as pytest tests. Needs the packages of the ``dev`` extra.

For example::

    class TestMySearcher(SearcherSuite):
        def make(self, problem, baseline):
            return MySearcher(problem, baseline)
"""

from __future__ import annotations

import copy
import heapq
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from petra.core.measurement import Measurement
from petra.core.objective import Constraint
from petra.core.rng import generator
from petra.core.trial import Failure, Proposal, Trial, TrialStatus
from petra.search.base import Problem, Searcher
from petra.space.space import Space, StageCard
from petra.testing.toy import CARDS, OBJECTIVES, toy_baseline, toy_problem, toy_trial

Evaluate = Callable[[Proposal], Trial]


def recorded(proposal: Proposal, *, failing: float = 0.2) -> Trial:
    """An arbitrary result that is a pure function of the pipeline: failed, timed out, or measured
    at random.
    """
    number, pipeline, origin = proposal.number, proposal.pipeline, proposal.origin
    rng = generator(7, pipeline.key, "recorded")
    fate = rng.random()
    if fate < failing / 2:
        return Trial(number, pipeline, TrialStatus.TIMED_OUT, origin)
    if fate < failing:
        failure = Failure(pipeline.stages[-1].kind, "StageRefused", "cannot")
        return Trial(number, pipeline, TrialStatus.FAILED, origin, failure=failure)
    metrics = {
        "quality": Measurement(float(rng.uniform(0.3, 0.95)), 0.01, 100),
        "latency_ratio": Measurement(float(rng.uniform(0.1, 1.5)), 0.01, 100, "x"),
        "size_bytes": Measurement(float(rng.integers(10_000, 2_000_000)), unit="B"),
    }
    return Trial(number, pipeline, TrialStatus.COMPLETE, origin, metrics=metrics)


def failed(proposal: Proposal) -> Trial:
    """The result of a proposal whose export fails."""
    failure = Failure("export", "ExportError", "cannot")
    return Trial(
        proposal.number, proposal.pipeline, TrialStatus.FAILED, proposal.origin, failure=failure
    )


def simulate(
    searcher: Searcher, evaluate: Evaluate, *, generations: int, workers: int = 1
) -> list[list[Trial]]:
    """Run `generations` on `workers` imaginary workers of uneven speed; the trials of each, as
    told.

    Trials finish in an order, and at times, that depend on `workers`.
    """
    clock = 0.0
    history: list[list[Trial]] = []
    for _ in range(generations):
        waiting = searcher.ask()
        if not waiting:
            break
        busy: list[tuple[float, int, Trial]] = []
        finished: list[Trial] = []
        while waiting or busy:
            while waiting and len(busy) < workers:
                proposal = waiting.pop(0)
                seconds = float(generator(workers, "duration", proposal.number).exponential(10.0))
                heapq.heappush(
                    busy,
                    (
                        clock + seconds,
                        proposal.number,
                        replace(evaluate(proposal), seconds=seconds),
                    ),
                )
            clock, _number, trial = heapq.heappop(busy)
            finished.append(replace(trial, finished_at=clock))
        history.append(sorted(finished, key=lambda t: t.number))
        searcher.tell(list(history[-1]))
    return history


def proposals(history: list[list[Trial]]) -> list[tuple[int, str, str, int | None]]:
    """What was proposed, for comparison: number, pipeline, move and parent."""
    return [
        (t.number, t.pipeline.canonical(), t.origin.move, t.origin.parent)
        for told in history
        for t in told
    ]


def _global_state() -> tuple[object, object]:
    """Of the generators of Python and NumPy, which searchers must leave alone."""
    return random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]


class SearcherSuite(ABC):
    """Subclass it under a name that begins with ``Test`` and say how the searcher is made."""

    generations = 6

    @abstractmethod
    def make(self, problem: Problem, baseline: Trial) -> Searcher:
        """A fresh searcher."""

    def _run(
        self, evaluate: Evaluate = recorded, *, problem: Problem | None = None, workers: int = 1
    ) -> list[list[Trial]]:
        searcher = self.make(problem or toy_problem(), toy_baseline())
        return simulate(searcher, evaluate, generations=self.generations, workers=workers)

    def test_proposals_are_legal_new_and_numbered(self) -> None:
        problem = toy_problem()
        trials = [t for told in self._run(problem=problem) for t in told]
        assert trials, "nothing was proposed"
        for trial in trials:
            assert problem.space.objection(trial.pipeline) == ""
            assert problem.space.normalize(trial.pipeline) == trial.pipeline
        assert [t.number for t in trials] == list(range(1, len(trials) + 1))
        keys = [toy_baseline().pipeline.key, *(t.pipeline.key for t in trials)]
        assert len(set(keys)) == len(keys), "a pipeline was proposed twice, or the baseline was"

    def test_replaying_recorded_results_proposes_the_same(self) -> None:
        history = self._run()
        again = self.make(toy_problem(), toy_baseline())
        for told in history:
            asked = again.ask()
            assert asked == [Proposal(t.number, t.pipeline, t.origin) for t in told]
            again.tell(told)

    @pytest.mark.parametrize("workers", [2, 8])
    def test_workers_do_not_matter(self, workers: int) -> None:
        assert proposals(self._run(workers=workers)) == proposals(self._run(workers=1))

    def test_global_random_state_is_neither_used_nor_changed(self) -> None:
        runs = []
        for seed in (1, 2):
            random.seed(seed)
            np.random.seed(seed)
            before = _global_state()
            runs.append(proposals(self._run()))
            assert before == _global_state()
        assert runs[0] == runs[1]

    def test_seeds_matter(self) -> None:
        first, second = (self._run(problem=toy_problem(seed=seed)) for seed in (1, 2))
        assert proposals(first) != proposals(second)

    def test_inputs_are_not_changed(self) -> None:
        problem, baseline = toy_problem(), toy_baseline()
        before = (repr(problem), repr(baseline))
        searcher = self.make(problem, baseline)
        for _ in range(self.generations):
            trials = [recorded(p) for p in searcher.ask()]
            kept = copy.copy(trials), repr(trials)
            searcher.tell(trials)
            assert (trials, repr(trials)) == kept
        assert (repr(problem), repr(baseline)) == before

    def test_what_ask_returns_belongs_to_the_caller(self) -> None:
        searcher, untouched = (self.make(toy_problem(), toy_baseline()) for _ in range(2))
        for _ in range(self.generations):
            asked, expected = searcher.ask(), untouched.ask()
            assert asked == expected
            trials = [recorded(p) for p in asked]
            asked.clear()
            searcher.tell(trials)
            untouched.tell(list(trials))
            trials.clear()

    def test_one_generation_in_which_everything_fails(self) -> None:
        searcher = self.make(toy_problem(), toy_baseline())
        searcher.tell([failed(p) for p in searcher.ask()])
        history = simulate(searcher, toy_trial, generations=self.generations)
        assert len(history) == self.generations

    def test_nothing_ever_succeeds(self) -> None:
        searcher = self.make(toy_problem(), toy_baseline())
        assert len(simulate(searcher, failed, generations=self.generations)) == self.generations

    def test_nothing_is_ever_feasible(self) -> None:
        constraints = (Constraint.parse("size <= 1 kB"), Constraint.parse("latency <= 0.01"))
        problem = toy_problem(constraints=constraints)
        history = self._run(lambda p: toy_trial(p, constraints=constraints), problem=problem)
        assert len(history) == self.generations

    def test_a_measurement_that_is_not_a_number_is_survived(self) -> None:
        def broken(proposal: Proposal) -> Trial:
            trial = toy_trial(proposal)
            if trial.measured and proposal.number % 3 == 0:
                return replace(trial, metrics={**trial.metrics, "quality": Measurement(math.nan)})
            return trial

        assert len(self._run(broken)) == self.generations

    def test_ends_with_a_reason_when_the_space_is_used_up(self) -> None:
        plain = [
            replace_parameters(card) for card in CARDS if card.name in ("tune", "prune", "half")
        ]
        space = Space({card.name: card for card in plain}, max_length=2)
        # Of one stage: 3. Of two: tune-prune, tune-half, prune-tune, prune-half.
        searcher = self.make(Problem(space, OBJECTIVES), toy_baseline())
        history = simulate(searcher, recorded, generations=50)
        assert searcher.ask() == []
        assert searcher.stop_reason
        assert len({t.pipeline.key for told in history for t in told}) == 7


def replace_parameters(card: StageCard) -> StageCard:
    """The card without its parameters, to make a space small enough to count."""
    return replace(card, parameters=())
