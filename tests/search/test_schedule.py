"""Which results a proposal is made from, and a stream that goes on from what is stored."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petra.core.errors import StoreError
from petra.core.trial import Proposal, Trial
from petra.search.evolution import EvolutionOptions, EvolutionSearcher
from petra.search.schedule import FixedLag, Schedule, Stream
from petra.search.table import make_searcher
from petra.testing.search_suite import recorded, simulate
from petra.testing.toy import toy_baseline, toy_problem, toy_trial


def stream(lag: int) -> Stream:
    return Stream(make_searcher("uniform", {}, toy_problem(), toy_baseline()), FixedLag(lag))


@settings(max_examples=20, deadline=None)
@given(lag=st.integers(1, 9), order=st.randoms(use_true_random=False))
def test_a_proposal_sees_all_trials_up_to_its_number_less_the_lag(lag: int, order) -> None:
    """Whatever the order in which they finish; and it comes as soon as they are there."""
    searching = stream(lag)
    made: list[Proposal] = []
    running: list[Proposal] = []
    finished: set[int] = set()
    while len(made) < 24:
        while len(made) < 24 and (proposal := searching.next()) is not None:
            seen = {n for p in [*made, proposal] for n in p.told}
            assert seen == set(range(1, proposal.number - lag + 1))
            made.append(proposal)
            running.append(proposal)
        assert len(running) <= lag
        if len(made) < 24:
            assert len(made) - lag + 1 not in finished, "the next one could have been made"
        done = running.pop(order.randrange(len(running)))
        finished.add(done.number)
        searching.put(recorded(done))


def test_nobody_waits_for_the_slowest_of_a_generation() -> None:
    """Seven of eight workers go on while trial 1 runs, until it is `lag` proposals behind."""
    searching = stream(16)
    first = [searching.next() for _ in range(8)]
    for proposal in first[1:]:
        assert proposal is not None
        searching.put(toy_trial(proposal))
    assert [p.number for p in iter(searching.next, None)] == list(range(9, 17))


@pytest.mark.parametrize("lag", [0, -1])
def test_a_lag_is_positive(lag: int) -> None:
    with pytest.raises(ValueError, match="lag"):
        FixedLag(lag)


def test_what_was_made_from_a_trial_that_is_gone_is_damage() -> None:
    searcher = make_searcher("uniform", {}, toy_problem(), toy_baseline())
    run = simulate(searcher, toy_trial, trials=20)
    kept = {t.number: t for t in run.trials if t.number != 3}
    with pytest.raises(StoreError, match="proposal 11 was made from trial 3"):
        stream(8).restore(run.proposals, kept)


def test_proposals_that_know_nothing_of_what_they_were_made_from_are_taken_too() -> None:
    """As those of an earlier petra, which may also lack numbers: the searcher learns all of it."""
    searcher = make_searcher("uniform", {}, toy_problem(), toy_baseline())
    run = simulate(searcher, toy_trial, trials=20)
    known = [replace(p, told=()) for p in run.proposals if p.number not in (18, 19)]
    options = EvolutionOptions(population=8)
    evolution = EvolutionSearcher(toy_problem(), toy_baseline(), options)
    searching = Stream(evolution, FixedLag(8))
    searching.restore(known, {t.number: t for t in run.trials})
    going = searching.next()
    assert going is not None
    assert (going.number, going.told) == (21, tuple(range(1, 14)))
    best = min(t.metrics["size_bytes"].mean for t in run.trials[:13] if t.measured)
    parents = {t.number for t in run.trials if t.number in evolution.population}
    assert best in {t.metrics["size_bytes"].mean for t in run.trials if t.number in parents}


class ByTwos(Schedule):
    """Another order: results are told in pairs, the later one first."""

    def __init__(self) -> None:
        self.waiting: list[int] = []

    def due(self, number: int) -> list[int]:
        ripe = [n for n in self.waiting if n <= 2 * ((number - 4) // 2)]
        return [n for pair in zip(ripe[1::2], ripe[::2], strict=True) for n in pair]

    def proposed(self, proposal: Proposal) -> None:
        self.waiting.append(proposal.number)

    def told(self, trial: Trial) -> None:
        self.waiting.remove(trial.number)


def test_another_schedule_takes_its_place() -> None:
    whole, part = (
        Stream(make_searcher("evolution", {}, toy_problem(), toy_baseline()), ByTwos())
        for _ in range(2)
    )
    made: list[Proposal] = []
    trials: dict[int, Trial] = {}
    while len(made) < 30:
        proposal = whole.next()
        assert proposal is not None
        made.append(proposal)
        trials[proposal.number] = toy_trial(proposal)
        whole.put(trials[proposal.number])
    assert made[7].told == (4, 3)
    part.restore(made[:17], trials)
    again = [part.next() for _ in range(13)]
    assert again == made[17:]
