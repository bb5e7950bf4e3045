"""What a proposal is up against: the front of what had been told, and of nothing else."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from petra.core.objective import Constraint, violation
from petra.core.rivals import Rivals
from petra.core.trial import FULL, Fidelity, Proposal, Trial
from petra.search.base import Problem
from petra.search.durations import Durations, Rates
from petra.search.schedule import Stream, VirtualSchedule
from petra.search.table import make_searcher
from petra.testing.search_suite import recorded
from petra.testing.toy import toy_baseline, toy_problem

BOUNDS = (Constraint.parse("quality >= baseline - 0.3"), Constraint.parse("size <= 900 kB"))


def problem(constraints: tuple[Constraint, ...]) -> Problem:
    return replace(toy_problem(), constraints=constraints)


def stream(given: Problem) -> Stream:
    """Eight at a time, all equally long."""
    even = Durations(given.space, Rates(fixed_s=1.0, epoch_s=0.0))
    searcher = make_searcher("uniform", {}, given, toy_baseline())
    return Stream(searcher, VirtualSchedule(8, even))


def outcome(proposal: Proposal) -> Trial:
    """Every fourth is of low fidelity, so no rival of anybody."""
    low = Fidelity(epochs=0.5) if proposal.number % 4 == 0 else FULL
    return replace(recorded(proposal), fidelity=low)


def brute_force(given: Problem, told: list[Trial]) -> list[dict[str, float]]:
    """The front's members by their definition, in order of telling."""
    known = [toy_baseline(), *(t for t in told if t.comparable)]
    inside = [t for t in known if violation(given.constraints, t.metrics, known[0].metrics) == 0]
    costs = [[o.cost(t.metrics) for o in given.objectives] for t in inside]

    def beaten(mine: list[float]) -> bool:
        return any(
            all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine
            for other in costs
        )

    return [
        {name: m.mean for name, m in t.metrics.items()}
        for t, mine in zip(inside, costs, strict=True)
        if not beaten(mine)
    ]


def run(
    given: Problem, *, workers: int, seed: int, trials: int = 60
) -> tuple[list[Proposal], dict[int, Trial], dict[int, Rivals]]:
    """A study in which trials finish in an order of their own."""
    searching, order = stream(given), random.Random(seed)
    made: list[Proposal] = []
    running: list[Proposal] = []
    seen: dict[int, Rivals] = {}
    finished: dict[int, Trial] = {}
    while len(finished) < trials:
        while (
            len(running) < workers
            and len(made) < trials
            and (proposal := searching.next()) is not None
        ):
            made.append(proposal)
            running.append(proposal)
            seen[proposal.number] = searching.rivals(proposal.number)
        done = outcome(running.pop(order.randrange(len(running))))
        finished[done.number] = done
        searching.put(done)
    return made, finished, seen


@pytest.mark.parametrize("constraints", [(), BOUNDS])
def test_rivals_are_the_front_of_what_was_told(constraints: tuple[Constraint, ...]) -> None:
    given = problem(constraints)
    made, finished, seen = run(given, workers=5, seed=1)
    told: list[Trial] = []
    for proposal in made:
        told += [finished[n] for n in proposal.told]
        rivals = seen[proposal.number]
        assert rivals.baseline == toy_baseline().metrics
        assert (rivals.objectives, rivals.constraints) == (given.objectives, given.constraints)
        found = [{name: m.mean for name, m in metrics.items()} for metrics in rivals.front]
        assert found == brute_force(given, told)
    assert len(seen[60].front) > 2


def test_rivals_do_not_depend_on_workers_or_on_who_finished_first() -> None:
    _, _, first = run(problem(BOUNDS), workers=1, seed=1)
    for workers, seed in ((4, 2), (8, 3)):
        assert run(problem(BOUNDS), workers=workers, seed=seed)[2] == first


def test_a_continued_study_has_the_same_rivals_for_what_is_still_to_run() -> None:
    made, finished, seen = run(problem(BOUNDS), workers=8, seed=4)
    kept = {n: t for n, t in finished.items() if n <= 34 and n not in (31, 33)}
    again = stream(problem(BOUNDS))
    again.restore(made[:38], kept)
    for number in (31, 33, 35, 36, 37, 38):
        assert again.rivals(number) == seen[number]
