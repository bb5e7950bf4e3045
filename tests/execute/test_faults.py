"""Stages that crash, hang, devour memory or diverge cost one trial each, with the reason; the study
goes on.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

import petra
from petra.core.trial import StageTrace, Trial, TrialStatus
from petra.methods.base import Context, Stage
from petra.methods.table import STAGES
from petra.space.effects import FLOAT_WEIGHTS, TRAINABLE, Effects
from petra.training.loop import TrainConfig, fit

pytestmark = pytest.mark.slow  # it waits; limits by themselves are in test_isolate_limits

Applied = tuple[nn.Module, StageTrace]


@dataclass(frozen=True)
class Crash(Stage):
    """Reads address zero."""

    name: ClassVar[str] = "faulty.crash"
    effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS])

    def apply(self, model: nn.Module, context: Context) -> Applied:
        ctypes.string_at(0)
        raise AssertionError("still alive")


@dataclass(frozen=True)
class Hang(Stage):
    """Never returns."""

    name: ClassVar[str] = "faulty.hang"
    effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS])

    def apply(self, model: nn.Module, context: Context) -> Applied:
        while True:
            time.sleep(1)


@dataclass(frozen=True)
class Devour(Stage):
    """Allocates, and touches, more than a trial may use."""

    name: ClassVar[str] = "faulty.devour"
    effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS])

    def apply(self, model: nn.Module, context: Context) -> Applied:
        held = []
        while True:
            held.append(torch.ones(8 << 20))
            time.sleep(0.02)


@dataclass(frozen=True)
class Diverge(Stage):
    """Trains at a rate that ends in NaN."""

    name: ClassVar[str] = "faulty.diverge"
    effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS, TRAINABLE])

    def apply(self, model: nn.Module, context: Context) -> Applied:
        config = TrainConfig(epochs=3, lr=1e30, clip_norm=0.0, warmup=0.0)
        fit(model, context.task, config, seed=0)
        return model, StageTrace(self.name)


@dataclass(frozen=True)
class Nothing(Stage):
    """Claims to have worked."""

    name: ClassVar[str] = "faulty.nothing"
    effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS])

    def apply(self, model: nn.Module, context: Context) -> Applied:
        return model, StageTrace(self.name, touched=("everything",))


@dataclass(frozen=True)
class Bug(Stage):
    """Raises what no stage should."""

    name: ClassVar[str] = "faulty.bug"
    effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS])

    def apply(self, model: nn.Module, context: Context) -> Applied:
        raise ZeroDivisionError("a bug in a plugin")


FAULTY = (Crash, Hang, Devour, Diverge, Nothing, Bug)
EXPECTED = {
    "faulty.crash": (TrialStatus.FAILED, "SIGSEGV"),
    "faulty.hang": (TrialStatus.TIMED_OUT, "not finished after"),
    "faulty.devour": (TrialStatus.FAILED, "of memory"),
    "faulty.diverge": (TrialStatus.FAILED, "loss is"),
    "faulty.nothing": (TrialStatus.FAILED, "left the model unchanged"),
    "faulty.bug": (TrialStatus.FAILED, "a bug in a plugin"),
}


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Trial]]:
    """A study whose space is the faulty stages and one that works; the trial of each stage."""
    for stage in FAULTY:
        if stage.name not in STAGES:
            STAGES.register(stage.name, stage)
    torch.manual_seed(0)
    x, y = torch.randn(64, 6), torch.randint(0, 3, (64,))
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    study = petra.compress(
        model,
        petra.classification((x, y), (x, y), (x, y)),
        search="uniform",
        space={
            "stages": {**{s.name: {} for s in FAULTY}, "tune": {"epochs": 1}},
            "max_length": 1,
            "initial": [[s.name] for s in FAULTY] + [["tune"]],
        },
        budget={"trials": 7},
        limits={"trial_time": "10 s", "trial_memory": "2 GiB", "workers": 2},
        workdir=tmp_path_factory.mktemp("faults"),
    )
    yield {t.pipeline.stages[0].kind: t for t in study.trials if t.number}
    STAGES.forget(*(s.name for s in FAULTY))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", EXPECTED)
def test_a_fault_is_one_failed_trial_with_its_reason(trials: dict[str, Trial], kind: str) -> None:
    status, words = EXPECTED[kind]
    trial = trials[kind]
    assert trial.status is status
    assert trial.failure is not None
    assert trial.failure.stage == kind
    assert words in trial.failure.message
    assert trial.artifact == ""


def test_memory_reached_is_recorded(trials: dict[str, Trial]) -> None:
    failure = trials["faulty.devour"].failure
    assert failure is not None
    assert failure.peak_memory_mb > 2048


def test_the_healthy_stage_completes_among_them(trials: dict[str, Trial]) -> None:
    trial = trials["tune"]
    assert trial.status is TrialStatus.COMPLETE
    assert trial.parity["relative_error"] < 1e-3
    assert trial.metrics["size_bytes"].mean > 0
