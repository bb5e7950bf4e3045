"""Which results a proposal is made from, and a stream that goes on from what is stored."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petra.core.errors import StoreError
from petra.core.rng import generator
from petra.core.trial import Proposal, Trial
from petra.search.durations import Durations
from petra.search.evolution import EvolutionOptions, EvolutionSearcher
from petra.search.schedule import Schedule, Stream, VirtualSchedule
from petra.search.table import make_searcher
from petra.testing.search_suite import recorded, simulate
from petra.testing.toy import toy_baseline, toy_problem, toy_trial


class Taking(Durations):
    """Durations that a test says, by number of the proposal."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        super().__init__(toy_problem().space)
        self.seconds = seconds

    def predict(self, proposal: Proposal) -> float:
        return self.seconds(proposal.number)


def stream(virtual: int, seconds: Callable[[int], float] = lambda number: 1.0) -> Stream:
    searcher = make_searcher("uniform", {}, toy_problem(), toy_baseline())
    return Stream(searcher, VirtualSchedule(virtual, Taking(seconds)))


def run(searching: Stream, trials: int, order: random.Random, *, at_once: int) -> list[Proposal]:
    """Proposals, each as soon as it comes; what is under way ends in a random order."""
    made: list[Proposal] = []
    running: list[Proposal] = []
    while len(made) < trials:
        while len(made) < trials and (proposal := searching.next()) is not None:
            made.append(proposal)
            running.append(proposal)
        if len(made) < trials:
            done = running.pop(order.randrange(min(at_once, len(running))))
            searching.put(recorded(done))
    return made


@settings(max_examples=20, deadline=None)
@given(virtual=st.integers(1, 9), seed=st.integers(0, 99), order=st.randoms())
def test_a_proposal_sees_what_has_virtually_finished(virtual: int, seed: int, order) -> None:
    """As when so many workers really ran them for those seconds: worked out from all of them."""
    seconds = [0.0, *map(float, generator(seed, "seconds").exponential(10.0, 40))]
    free = [0.0] * virtual
    ends: dict[int, float] = {}
    for proposal in run(stream(virtual, lambda n: seconds[n]), 40, order, at_once=9):
        start = min(free)
        newly = [n for n, end in ends.items() if end <= start]
        assert proposal.told == tuple(sorted(newly, key=lambda n: ends[n]))
        ends = {n: end for n, end in ends.items() if n not in newly}
        ends[proposal.number] = start + seconds[proposal.number]
        free[free.index(start)] = ends[proposal.number]


@settings(max_examples=20, deadline=None)
@given(virtual=st.integers(1, 9), order=st.randoms())
def test_of_equal_length_it_sees_all_up_to_its_number_less_the_workers(virtual: int, order) -> None:
    seen: set[int] = set()
    for proposal in run(stream(virtual), 24, order, at_once=9):
        seen |= set(proposal.told)
        assert seen == set(range(1, proposal.number - virtual + 1))


@pytest.mark.parametrize("at_once", [1, 2, 8])
def test_real_workers_do_not_matter(at_once: int) -> None:
    def made(workers: int, seed: int) -> list[Proposal]:
        searching = stream(4, lambda n: float(generator(n, "seconds").lognormal()))
        return run(searching, 60, random.Random(seed), at_once=workers)

    assert made(at_once, at_once) == made(1, 0)


def test_a_proposal_comes_as_soon_as_what_it_is_made_from_is_there() -> None:
    searching = stream(3, lambda n: 5.0 if n == 1 else 1.0)
    first = [searching.next() for _ in range(3)]
    assert searching.next() is None
    assert first[1]
    assert first[2]
    searching.put(recorded(first[2]))
    assert searching.next() is None, "trial 2 ends first, virtually"
    searching.put(recorded(first[1]))
    assert [p.told for p in iter(searching.next, None)] == [(2,), (3,)]


def test_nobody_waits_for_the_slowest() -> None:
    """The others go on while trial 1 runs, as long as it was predicted to."""
    searching = stream(8, lambda n: 100.0 if n == 1 else 1.0)
    first = [searching.next() for _ in range(8)]
    running = [p for p in first if p][1:]
    for _ in range(200):
        searching.put(recorded(running.pop(0)))
        running.append(cast(Proposal, searching.next()))
    assert max(p.number for p in running) == 208


def test_more_proposals_under_way_than_workers_are_told_first() -> None:
    """A study that was begun with more of them, or by an earlier petra."""
    wide, narrow = stream(8), stream(2)
    made = [p for _ in range(8) if (p := wide.next())]
    narrow.restore(made, {p.number: recorded(p) for p in made})
    going = narrow.next()
    assert going is not None
    assert going.told == tuple(range(1, 8))


@pytest.mark.parametrize("workers", [0, -1])
def test_somebody_works(workers: int) -> None:
    with pytest.raises(ValueError, match="workers"):
        VirtualSchedule(workers, Durations(toy_problem().space))


def test_what_was_made_from_a_trial_that_is_gone_is_damage() -> None:
    searcher = make_searcher("uniform", {}, toy_problem(), toy_baseline())
    whole = simulate(searcher, toy_trial, trials=20)
    asking = next(p.number for p in whole.proposals if 3 in p.told)
    kept = {t.number: t for t in whole.trials if t.number != 3}
    with pytest.raises(StoreError, match=f"proposal {asking} was made from trial 3"):
        stream(8).restore(whole.proposals, kept)


def test_proposals_that_know_nothing_of_what_they_were_made_from_are_taken_too() -> None:
    """As those of an earlier petra, which may also lack numbers: the searcher learns all of it."""
    searcher = make_searcher("uniform", {}, toy_problem(), toy_baseline())
    whole = simulate(searcher, toy_trial, trials=20)
    known = [replace(p, told=()) for p in whole.proposals if p.number not in (18, 19)]
    options = EvolutionOptions(population=8)
    evolution = EvolutionSearcher(toy_problem(), toy_baseline(), options)
    searching = Stream(evolution, VirtualSchedule(8, Taking(lambda number: 1.0)))
    searching.restore(known, {t.number: t for t in whole.trials})
    going = searching.next()
    assert going is not None
    assert (going.number, going.told) == (21, tuple(range(1, 12)))
    best = min(t.metrics["size_bytes"].mean for t in whole.trials[:11] if t.measured)
    parents = {t.number for t in whole.trials if t.number in evolution.population}
    assert best in {t.metrics["size_bytes"].mean for t in whole.trials if t.number in parents}


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
