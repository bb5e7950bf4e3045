"""A study proposes, and finds, the same with any number of workers: really built and measured, not
recorded."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from petra.api import create_or_continue
from petra.config import parse_config
from petra.core.trial import Trial
from petra.execute.training_speed import TrainingSpeed
from petra.store.store import Store
from petra.study import Study
from petra.tasks.base import Task

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
            *(t.metrics[m].mean for m in ("quality", "size_bytes", "params") if t.metrics),
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


@pytest.mark.slow
def test_studies_of_one_seed_and_as_many_threads_are_the_same(
    tmp_path: Path, digits_problem: tuple[nn.Module, Task]
) -> None:
    """Also when each was begun with its own number of workers."""
    made = [
        study(tmp_path / str(n), digits_problem, trials=8, workers=n, build_threads=1).run()
        for n in (1, 2)
    ]
    assert found(made[0].trials) == found(made[1].trials)
