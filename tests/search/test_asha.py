"""Successive halving: who is promoted, to what, and what that saves."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from petra.core.errors import ConfigError
from petra.core.objective import Constraint
from petra.core.pipeline import Pipeline
from petra.core.rng import generator
from petra.core.trial import FULL, Fidelity, Proposal, Trial
from petra.moo.dominance import ranks
from petra.search.asha import PROMOTED, AshaOptions, AshaSearcher, trains
from petra.search.base import Problem, Searcher
from petra.search.durations import Durations
from petra.search.scaling import scale
from petra.search.schedule import Stream, VirtualSchedule
from petra.search.table import make_searcher
from petra.testing.search_suite import SearcherSuite, recorded, simulate
from petra.testing.toy import toy_baseline, toy_epochs, toy_problem, toy_trial

ZERO, NINTH, THIRD = Fidelity(zero_shot=True), Fidelity(epochs=1 / 9), Fidelity(epochs=1 / 3)


class TestAshaOfUniform(SearcherSuite):
    def make(self, problem: Problem, baseline: Trial) -> Searcher:
        options = AshaOptions(proposals="uniform", zero_shot=False, shares=1, share_of="data")
        return AshaSearcher(problem, baseline, options)


def searcher(problem: Problem | None = None, **options: object) -> AshaSearcher:
    made = make_searcher("asha", options, problem or toy_problem(), toy_baseline())
    assert isinstance(made, AshaSearcher)
    return made


def test_rungs() -> None:
    assert AshaOptions().rungs() == (ZERO, NINTH, THIRD, FULL)
    assert AshaOptions(eta=4, shares=1, zero_shot=False).rungs() == (Fidelity(epochs=0.25), FULL)
    assert AshaOptions(shares=1, share_of="data").rungs() == (ZERO, Fidelity(data=1 / 3), FULL)
    assert AshaOptions(shares=0, zero_shot=False).rungs() == (FULL,)


@pytest.mark.parametrize("name", ["asha", "evolve"])
def test_only_other_searchers_propose(name: str) -> None:
    with pytest.raises(ConfigError, match="proposals"):
        searcher(proposals=name)


def test_one_in_eta_is_promoted_and_those_are_the_best() -> None:
    """Whenever one is promoted, it is among the best third, by rank, of the results told of its
    rung. (More than a third are in the end: who is among the best changes as proposals improve.)
    """
    made = searcher()
    scaling = scale(toy_problem().objectives, (), toy_baseline())
    run = simulate(made, toy_trial, trials=250, workers=3)
    trials = {t.number: t for t in run.trials}
    rungs = [r.fidelity for r in made.rungs]
    told: dict[Fidelity, list[Trial]] = {at: [] for at in rungs}
    for proposal in run.proposals:
        for number in proposal.told:
            trial = trials[number]
            if any(map(trains, trial.pipeline)):
                told[trial.fidelity].append(trial)
        if proposal.origin != PROMOTED:
            continue
        below = rungs[rungs.index(proposal.fidelity) - 1]
        peers = [t for t in told[below] if t.measured]
        (at,) = [i for i, t in enumerate(peers) if t.pipeline == proposal.pipeline]
        rank = ranks([scaling.costs(replace(t, fidelity=FULL)) for t in peers])
        assert (rank < rank[at]).sum() < len(told[below]) / 3
    counts = Counter(p.fidelity for p in run.proposals if any(map(trains, p.pipeline)))
    for low, high in pairwise(rungs):
        assert 0.2 < counts[high] / counts[low] < 0.7


def test_what_trains_nothing_is_evaluated_in_full_at_once() -> None:
    run = simulate(searcher(proposals="uniform"), toy_trial, trials=120)
    free = [p for p in run.proposals if not any(map(trains, p.pipeline))]
    assert free
    assert {p.fidelity for p in free} == {FULL}
    assert PROMOTED not in {p.origin for p in free}


def test_given_pipelines_are_evaluated_in_full_and_once() -> None:
    space = toy_problem().space
    given = tuple(space.sample(generator(i, "given")) for i in range(4))
    run = simulate(searcher(replace(toy_problem(), initial=given)), toy_trial, trials=60)
    of_given = [p for p in run.proposals if p.pipeline in given]
    assert [(p.pipeline, p.fidelity) for p in of_given] == [(p, FULL) for p in given]


def test_without_a_feasible_one_the_nearest_are_promoted() -> None:
    constraints = (Constraint.parse("size <= 60 kB"),)
    problem = toy_problem(constraints=constraints)
    made = searcher(problem)
    run = simulate(made, lambda p: toy_trial(p, constraints=constraints), trials=150)
    scaling = scale(problem.objectives, constraints, toy_baseline())
    at_zero = [t for t in run.trials if t.fidelity == ZERO and t.measured]
    chosen = {t.pipeline.key for t in run.trials if t.origin == PROMOTED}
    excess = {
        kind: np.mean([scaling.violation(t) for t in at_zero if (t.pipeline.key in chosen) is kind])
        for kind in (True, False)
    }
    assert excess[True] < excess[False]


def test_failures_take_a_place_and_are_not_promoted() -> None:
    run = simulate(searcher(), recorded, trials=150)
    measured = {(t.pipeline.key, t.fidelity) for t in run.trials if t.measured}
    rungs = AshaOptions().rungs()
    for proposal in run.proposals:
        if proposal.origin == PROMOTED:
            below = rungs[rungs.index(proposal.fidelity) - 1]
            assert (proposal.pipeline.key, below) in measured


EPOCH_S, REST_S = 20.0, 5.0  # of an epoch, and of exporting and measuring a candidate


def seconds_to(made: Searcher, volume: float) -> float:
    """Seconds of work, training being continued, until the trials at full fidelity have this
    hypervolume.
    """
    scaling = scale(toy_problem().objectives, (), toy_baseline())
    stream = Stream(made, VirtualSchedule(4, Durations(made.problem.space)))
    clock = 0.0
    trained: dict[str, float] = {}
    full: list[Trial] = []
    waiting: list[Proposal] = []
    while True:
        while proposal := stream.next():
            waiting.append(proposal)
        trial = toy_trial(waiting.pop(0))
        key, epochs = trial.pipeline.key, sum(toy_epochs(trial.pipeline, trial.fidelity))
        clock += REST_S + EPOCH_S * max(0.0, epochs - trained.get(key, 0.0))
        trained[key] = max(epochs, trained.get(key, 0.0))
        if trial.comparable:
            full.append(trial)
            if scaling.hypervolume(full) >= volume:
                return clock
        stream.put(trial)


def test_it_takes_less_time_than_the_searcher_inside() -> None:
    """Where training is most of the cost: geometric mean of the ratios over ten seeds."""
    ratios = []
    for seed in range(10):
        problem, baseline = toy_problem(seed=seed), toy_baseline()
        plain = make_searcher("evolution", {}, problem, baseline)
        ratios.append(seconds_to(searcher(problem), 0.28) / seconds_to(plain, 0.28))
    assert np.exp(np.mean(np.log(ratios))) < 0.75, ratios


def test_promotions_keep_their_pipeline() -> None:
    """Every promotion is of a pipeline that was evaluated one rung below."""
    run = simulate(searcher(proposals="uniform"), toy_trial, trials=100)
    seen: set[tuple[Pipeline, Fidelity]] = set()
    rungs = AshaOptions().rungs()
    for p in run.proposals:
        if p.origin == PROMOTED:
            assert (p.pipeline, rungs[rungs.index(p.fidelity) - 1]) in seen
        seen.add((p.pipeline, p.fidelity))
