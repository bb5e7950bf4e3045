"""How many threads a candidate is built with: chosen from real steps, and kept with the study."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petra.core.errors import StoreError
from petra.core.target import Target
from petra.execute.base import Limits
from petra.execute.build import BuildPayload
from petra.execute.crew import Crew
from petra.execute.training_speed import (
    BLOCK,
    SPEED_NOTE,
    TrainingSpeed,
    _Enough,
    _Turns,
    time_steps,
    try_training,
)
from petra.store.store import Store
from petra.tasks.base import Task
from petra.workers.failures import WorkerFailure


@pytest.fixture
def payload(digits_problem: tuple[nn.Module, Task], tmp_path: Path) -> BuildPayload:
    return BuildPayload(*digits_problem, Target(), seed=0, data=tmp_path)


class Here:
    """Calls in this process."""

    closed = False
    peak_memory_mb = 0.0

    def __init__(self, payload: BuildPayload) -> None:
        self.payload = payload

    def call(self, function: Any, *args: Any, **limits: Any) -> Any:
        try:
            return function(self.payload, lambda note: None, *args)
        except RuntimeError as error:
            raise WorkerFailure("RuntimeError", str(error), "") from None


def test_real_steps_are_timed_and_nothing_else_is_touched(payload: BuildPayload) -> None:
    before = {k: v.clone() for k, v in payload.model.state_dict().items()}
    threads, random = torch.get_num_threads(), torch.random.get_rng_state()
    steps, seconds = time_steps(payload, lambda note: None, (1,))
    assert steps == 1078 // 128
    assert len(seconds) == 1
    assert 0 < seconds[0] < 60
    assert all(torch.equal(v, before[k]) for k, v in payload.model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert torch.get_num_threads() == threads
    speed = try_training(Here(payload), (1,), Crew(1), Limits(600, 8192))
    assert speed.epoch_s == pytest.approx(8 * speed.step_s[1])


def test_numbers_of_threads_take_turns_and_the_first_step_of_each_is_not_timed() -> None:
    """Steps of a second with one thread and of a third with two, the first of each far longer."""
    threads = torch.get_num_threads()
    clock = [0.0]
    turns = _Turns((1, 2), now=lambda: clock[0])
    try:
        for done in range(1, 2 * BLOCK):
            turn, at = divmod(done - 1, BLOCK)
            clock[0] += 9.0 if not at else (1.0, 1 / 3)[turn]
            turns.tick(done, 99, "")
        with pytest.raises(_Enough):
            turns.tick(2 * BLOCK, 99, "")
    finally:
        torch.set_num_threads(threads)
    assert turns.medians() == pytest.approx((1.0, 1 / 3))


def test_a_model_that_does_not_train_is_built_with_all(payload: BuildPayload) -> None:
    class Refusing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise RuntimeError("not made for training")
            return x.flatten(1)[:, :10]

    here = Here(replace(payload, model=Refusing()))
    speed = try_training(here, (1, 2), Crew(2), Limits(600, 8192))
    assert speed == TrainingSpeed(2)
    assert speed.in_words() == "2 threads for each candidate"


@pytest.mark.parametrize(
    "speed", [TrainingSpeed(3), TrainingSpeed(2, 0.5, {1: 0.03, 2: 0.02}), TrainingSpeed(1, 9.0)]
)
def test_it_comes_back_from_the_store(tmp_path: Path, speed: TrainingSpeed) -> None:
    with Store.create(tmp_path, {}, {}) as store:
        assert TrainingSpeed.of(store) is None
        store.set_note(SPEED_NOTE, speed.as_note())
        assert TrainingSpeed.of(store) == speed


@pytest.mark.parametrize(
    "note",
    [
        [],
        {},
        {"threads": 0, "epoch_s": 1.0, "step_s": {}},
        {"threads": 10**6, "epoch_s": 1.0, "step_s": {}},
        {"threads": 1, "epoch_s": -1.0, "step_s": {}},
        {"threads": 1, "epoch_s": "1", "step_s": {}},
        {"threads": 1, "epoch_s": None, "step_s": {"1": 0.0}},
        {"threads": 1, "epoch_s": None, "step_s": {"one": 1.0}},
    ],
)
def test_what_petra_did_not_write_is_damage(tmp_path: Path, note: object) -> None:
    with Store.create(tmp_path, {}, {}) as store:
        store.set_note(SPEED_NOTE, note)
        with pytest.raises(StoreError, match="training_speed"):
            TrainingSpeed.of(store)
