"""A study proposes, and finds, the same with any number of workers, also where candidates are
really built and measured; threads are chosen when it begins."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from petra.api import create_or_continue
from petra.config import parse_config
from petra.core.trial import Proposal, Trial
from petra.execute.base import Assignment, Executor, OnNote
from petra.execute.training_speed import SPEED_NOTE, TrainingSpeed
from petra.listener import Silent
from petra.measure.host import cores
from petra.store.store import Store
from petra.study import Study
from petra.tasks.base import Task
from petra.testing.recorded import RecordedExecutor

# What the clock decides is not the same twice: no objective is timed, no limit is near.
SETTINGS: dict[str, Any] = {
    "objectives": ["quality", "size"],
    "search": {"name": "evolution", "population": 4, "offspring": 4},
    "virtual_workers": 3,
    "seed": 1,
}


def study(
    place: Path, problem: tuple[nn.Module, Task], *, trials: int, **limits: int | None
) -> Study:
    data = {**SETTINGS, "budget": {"trials": trials}, "limits": limits, "workdir": str(place)}
    return create_or_continue(parse_config(data), *problem)


def found(trials: list[Trial]) -> list[tuple[object, ...]]:
    """All of a trial that no clock is in."""
    return [
        (
            t.number,
            t.pipeline.canonical(),
            t.origin,
            t.status,
            t.failure and (t.failure.stage, t.failure.kind, t.failure.message),
            *(t.metrics[m].mean for m in ("quality", "size_bytes", "params") if m in t.metrics),
        )
        for t in trials
    ]


@pytest.mark.slow
def test_one_worker_and_two_propose_and_find_the_same(
    tmp_path: Path, digits_problem: tuple[nn.Module, Task]
) -> None:
    """The study begins with one, which has all cores; what follows goes on with two, and as if it
    had always been so.
    """
    alone, both = tmp_path / "alone", tmp_path / "both"
    study(alone, digits_problem, trials=1, workers=1).run()
    shutil.copytree(alone, both)
    one = study(alone, digits_problem, trials=14, workers=1).run()
    two = study(both, digits_problem, trials=14, workers=2).run()
    assert len(one.trials) == 15
    assert found(one.trials) == found(two.trials)
    with Store.open(alone, write=False) as a, Store.open(both, write=False) as b:
        assert a.proposals() == b.proposals()
        assert TrainingSpeed.of(a) == TrainingSpeed.of(b) is not None


class Knowing(RecordedExecutor):
    """Recorded results, and what the local executor would note of threads."""

    def __init__(self, assignment: Assignment, speed: TrainingSpeed | None) -> None:
        super().__init__(assignment)
        self.speed = speed

    def baseline(self, proposal: Proposal, *, on_note: OnNote) -> tuple[Trial, Mapping[str, Any]]:
        trial, facts = super().baseline(proposal, on_note=on_note)
        return trial, {**facts, SPEED_NOTE: self.speed.as_note()} if self.speed else facts


def threads_of(ready: Study, speed: TrainingSpeed | None = None) -> int | None:
    """How many an executor is told to build with."""
    given: list[Assignment] = []

    def make(assignment: Assignment) -> Executor:
        given.append(assignment)
        return Knowing(assignment, speed)

    ready.run(executor=make)
    return given[0].threads


def test_threads_are_chosen_once_and_kept_whatever_the_workers(
    tmp_path: Path, digits_problem: tuple[nn.Module, Task]
) -> None:
    speed = TrainingSpeed(3, 0.5, {1: 0.2, 3: 0.1})
    assert threads_of(study(tmp_path, digits_problem, trials=2, workers=1), speed) is None
    for trials, workers in ((4, 2), (6, 16)):
        going = study(tmp_path, digits_problem, trials=trials, workers=workers)
        assert threads_of(going) == 3
    last = study(tmp_path, digits_problem, trials=8, workers=1, build_threads=5)
    assert threads_of(last) == 5


def test_a_study_that_noted_no_threads_goes_on_as_it_did(
    tmp_path: Path, digits_problem: tuple[nn.Module, Task]
) -> None:
    """Those of an earlier petra had the cores divided by the workers."""
    threads_of(study(tmp_path, digits_problem, trials=2, workers=1))
    assert threads_of(study(tmp_path, digits_problem, trials=4, workers=1)) == cores()


@pytest.mark.parametrize(("workers", "idle"), [(2, ""), (3, ""), (5, "2 of 5 workers")])
def test_workers_and_threads_are_said_and_who_will_be_idle(
    tmp_path: Path, digits_problem: tuple[nn.Module, Task], workers: int, idle: str
) -> None:
    class Hearing(Silent):
        said = ""

        def message(self, text: str) -> None:
            self.said += f"{text}\n"

    ready, listener = study(tmp_path, digits_problem, trials=2, workers=workers), Hearing()
    speed = TrainingSpeed(1, 0.5, {1: 0.1, 2: 0.2})
    ready.run(listener, executor=lambda assignment: Knowing(assignment, speed))
    assert f"workers: {workers}, 1 thread for each" in listener.said
    assert "0.5 times as fast with 2" in listener.said
    assert (f"{idle} will be idle" in listener.said) if idle else ("idle" not in listener.said)
