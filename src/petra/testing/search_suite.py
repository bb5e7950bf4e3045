"""The promises every searcher keeps, as pytest tests. Needs the packages of the ``dev`` extra.

For example::

    class TestMySearcher(SearcherSuite):
        def make(self, problem, baseline):
            return MySearcher(problem, baseline)
"""

from __future__ import annotations

import heapq
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from petra.core.measurement import Measurement
from petra.core.objective import Constraint
from petra.core.rng import generator
from petra.core.trial import GIVEN, PAST, RECIPE, Failure, Fidelity, Proposal, Trial, TrialStatus
from petra.search.base import Problem, Searcher
from petra.search.durations import Durations
from petra.search.schedule import Stream, VirtualSchedule
from petra.search.uniform import UniformSearcher
from petra.space.space import Space, StageCard
from petra.testing.toy import CARDS, OBJECTIVES, toy_baseline, toy_problem, toy_trial

Evaluate = Callable[[Proposal], Trial]


def recorded(proposal: Proposal, *, failing: float = 0.2) -> Trial:
    """An arbitrary result that is a pure function of the pipeline: failed, timed out, screened, or
    measured at random.
    """
    rng = generator(7, proposal.pipeline.key, "recorded")
    fate = rng.random()
    if fate < failing / 2:
        return proposal.ended(TrialStatus.TIMED_OUT)
    if fate < failing:
        failure = Failure(proposal.pipeline.stages[-1].kind, "StageRefused", "cannot")
        return proposal.ended(TrialStatus.FAILED, failure=failure)
    metrics = {
        "quality": Measurement(float(rng.uniform(0.3, 0.95)), 0.01, 100),
        "latency_ratio": Measurement(float(rng.uniform(0.1, 1.5)), 0.01, 100, "x"),
        "size_bytes": Measurement(float(rng.integers(10_000, 2_000_000)), unit="B"),
    }
    if fate < 1.5 * failing:
        del metrics["quality"]
        failure = Failure("screen", "dominated", "it cannot extend the front")
        return proposal.ended(TrialStatus.SCREENED, metrics=metrics, failure=failure)
    return proposal.ended(TrialStatus.COMPLETE, metrics=metrics)


def failed(proposal: Proposal) -> Trial:
    """The result of a proposal whose export fails."""
    failure = Failure("export", "ExportError", "cannot")
    return proposal.ended(TrialStatus.FAILED, failure=failure)


@dataclass(frozen=True)
class Run:
    """What was proposed and what came of it, by number."""

    proposals: list[Proposal]
    trials: list[Trial]


def simulate(
    searcher: Searcher,
    evaluate: Evaluate,
    *,
    trials: int,
    workers: int = 1,
    virtual: int = 4,
    before: Run | None = None,
) -> Run:
    """Run `trials` proposals, those of a run `before` included, on `workers` imaginary workers of
    uneven speed. Trials finish in an order, and at times, that depend on `workers`; proposals are
    made for `virtual` ones.
    """
    stream = Stream(searcher, VirtualSchedule(virtual, Durations(searcher.problem.space)))
    made = list(before.proposals) if before else []
    done = {t.number: t for t in before.trials} if before else {}
    stream.restore(made, done)
    waiting = [p for p in made if p.number not in done]
    busy: list[tuple[float, int, Trial]] = []
    clock = 0.0
    while True:
        while len(made) < trials and (proposal := stream.next()):
            made.append(proposal)
            waiting.append(proposal)
        while waiting and len(busy) < workers:
            trial = evaluate(waiting[0])
            number = waiting.pop(0).number
            seconds = float(generator(workers, "duration", number).exponential(10.0))
            heapq.heappush(busy, (clock + seconds, number, replace(trial, seconds=seconds)))
        if not busy:
            return Run(made, [done[number] for number in sorted(done)])
        clock, number, trial = heapq.heappop(busy)
        done[number] = replace(trial, finished_at=clock)
        stream.put(done[number])


def _global_state() -> tuple[object, object]:
    """Of the generators of Python and NumPy, which searchers must leave alone."""
    return random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]


class SearcherSuite(ABC):
    """Subclass it under a name that begins with ``Test`` and say how the searcher is made."""

    trials = 48

    @abstractmethod
    def make(self, problem: Problem, baseline: Trial) -> Searcher:
        """A fresh searcher."""

    def _run(
        self, evaluate: Evaluate = recorded, *, problem: Problem | None = None, workers: int = 1
    ) -> Run:
        searcher = self.make(problem or toy_problem(), toy_baseline())
        return simulate(searcher, evaluate, trials=self.trials, workers=workers)

    def test_proposals_are_legal_new_and_numbered(self) -> None:
        problem = toy_problem()
        trials = self._run(problem=problem).trials
        assert trials, "nothing was proposed"
        for trial in trials:
            assert problem.space.objection(trial.pipeline) == ""
            assert problem.space.normalize(trial.pipeline) == trial.pipeline
        assert [t.number for t in trials] == list(range(1, len(trials) + 1))
        assert toy_baseline().pipeline not in [t.pipeline for t in trials]
        keys = [(t.pipeline.key, t.fidelity) for t in trials]
        assert len(set(keys)) == len(keys), "a pipeline was proposed twice at a fidelity"

    def test_proposals_say_what_they_were_made_from(self) -> None:
        run = self._run(workers=8)
        told: set[int] = set()
        for proposal in run.proposals:
            assert not told & set(proposal.told)
            told |= set(proposal.told)
            assert len(told) == max(0, proposal.number - 4)
            assert max(told, default=0) < proposal.number

    def test_replaying_recorded_results_proposes_the_same(self) -> None:
        assert self._run().proposals == self._run().proposals

    @pytest.mark.parametrize("made", [0, 1, 7, 20, 47])
    def test_a_search_that_was_cut_off_goes_on_as_if_it_had_not_been(self, made: int) -> None:
        """Also when the last few proposals had not finished."""
        whole = self._run()
        part = Run(whole.proposals[:made], [t for t in whole.trials[:made] if t.number % 7 != 6])
        told = {number for p in part.proposals for number in p.told}
        part.trials.extend(t for t in whole.trials if t.number in told and t not in part.trials)
        searcher = self.make(toy_problem(), toy_baseline())
        again = simulate(searcher, recorded, trials=self.trials, workers=2, before=part)
        assert again.proposals == whole.proposals

    def test_stored_proposals_are_taken_as_they_are(self) -> None:
        """Also those that this searcher would never make: they were another version's."""
        others = UniformSearcher(toy_problem(seed=99), toy_baseline())
        part = simulate(others, recorded, trials=20)
        searcher = self.make(toy_problem(), toy_baseline())
        run = simulate(searcher, recorded, trials=self.trials, before=part)
        assert run.proposals[:20] == part.proposals
        assert len({(p.pipeline.key, p.fidelity) for p in run.proposals}) == self.trials

    def test_initial_pipelines_come_first(self) -> None:
        given = tuple(toy_problem().space.sample(generator(i, "initial")) for i in range(5))
        problem = replace(toy_problem(), initial=given, recipes=given[3:], past=given[2:3])
        run = self._run(problem=problem)
        assert tuple(p.pipeline for p in run.proposals[:5]) == given
        assert [p.origin for p in run.proposals[:5]] == [GIVEN] * 2 + [PAST] + [RECIPE] * 2

    @pytest.mark.parametrize("workers", [2, 8])
    def test_workers_do_not_matter(self, workers: int) -> None:
        assert self._run(workers=workers).proposals == self._run(workers=1).proposals

    def test_global_random_state_is_neither_used_nor_changed(self) -> None:
        runs = []
        for seed in (1, 2):
            random.seed(seed)
            np.random.seed(seed)
            before = _global_state()
            runs.append(self._run().proposals)
            assert before == _global_state()
        assert runs[0] == runs[1]

    def test_seeds_matter(self) -> None:
        first, second = (self._run(problem=toy_problem(seed=seed)) for seed in (1, 2))
        assert first.proposals != second.proposals

    def test_inputs_are_not_changed(self) -> None:
        problem, baseline = toy_problem(), toy_baseline()
        before = (repr(problem), repr(baseline))
        told: list[tuple[Trial, str]] = []

        def kept(proposal: Proposal) -> Trial:
            trial = recorded(proposal)
            told.append((trial, repr(trial.metrics)))
            return trial

        simulate(self.make(problem, baseline), kept, trials=self.trials)
        assert (repr(problem), repr(baseline)) == before
        assert all(repr(trial.metrics) == metrics for trial, metrics in told)

    def test_a_beginning_in_which_everything_fails(self) -> None:
        def at_first(proposal: Proposal) -> Trial:
            return failed(proposal) if proposal.number <= 8 else toy_trial(proposal)

        assert len(self._run(at_first).trials) == self.trials

    def test_nothing_ever_succeeds(self) -> None:
        assert len(self._run(failed).trials) == self.trials

    def test_nothing_is_ever_feasible(self) -> None:
        constraints = (Constraint.parse("size <= 1 kB"), Constraint.parse("latency <= 0.01"))
        problem = toy_problem(constraints=constraints)
        run = self._run(lambda p: toy_trial(p, constraints=constraints), problem=problem)
        assert len(run.trials) == self.trials

    def test_results_of_low_fidelity_are_survived(self) -> None:
        """As if somebody else had asked for them."""
        low = Fidelity(epochs=0.1)
        run = self._run(lambda p: replace(toy_trial(p), fidelity=low))
        assert len(run.trials) == self.trials

    def test_a_measurement_that_is_not_a_number_is_survived(self) -> None:
        def broken(proposal: Proposal) -> Trial:
            trial = toy_trial(proposal)
            if trial.measured and proposal.number % 3 == 0:
                return replace(trial, metrics={**trial.metrics, "quality": Measurement(math.nan)})
            return trial

        assert len(self._run(broken).trials) == self.trials

    def test_ends_with_a_reason_when_the_space_is_used_up(self) -> None:
        plain = [
            replace_parameters(card) for card in CARDS if card.name in ("tune", "prune", "half")
        ]
        space = Space({card.name: card for card in plain}, max_length=2)
        # Of one stage: 3. Of two: tune-prune, tune-half, prune-tune, prune-half.
        searcher = self.make(Problem(space, OBJECTIVES), toy_baseline())
        run = simulate(searcher, recorded, trials=400)
        assert searcher.ask() is None
        assert searcher.stop_reason
        assert len({t.pipeline.key for t in run.trials}) == 7


def replace_parameters(card: StageCard) -> StageCard:
    """The card without its parameters, to make a space small enough to count."""
    return replace(card, parameters=())
