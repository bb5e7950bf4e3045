"""Pipelines on shares of their training: what runs, and that a promotion goes on where the lower
rung was stopped."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from petra.core.pipeline import Pipeline, StageSpec
from petra.core.rng import derive_seed
from petra.core.trial import FULL, Fidelity, StageTrace
from petra.execute.apply import apply_pipeline
from petra.execute.cache import PrefixCache
from petra.execute.plan import steps_of
from petra.methods.base import Context
from petra.model.description.state_hash import state_hash
from petra.model.outline import outline_of
from petra.testing.stage_suite import small_problem

CUT = StageSpec("prune.structured", {"ratio": 0.4})
TUNE = StageSpec("tune", {"epochs": 3, "batch_size": 32, "mixup": 0.2})
QAT = StageSpec("quantize.qat", {"epochs": 3, "samples": 32, "batch_size": 32})
SVD = StageSpec("lowrank.svd", {"ratio": 0.2, "epochs": 3, "truncate_every": 1})
THRICE = StageSpec("prune.structured", {"ratio": 0.5, "schedule": "iterative", "steps": 4})
RUNGS = (Fidelity(epochs=1 / 9), Fidelity(epochs=0.4), FULL)


def run(
    *stages: StageSpec, at: Fidelity = FULL, place: Path | None = None, die_at: int | None = None
) -> tuple[str, tuple[StageTrace, ...]]:
    """State hash and traces; the process ends, as by a crash, at step `die_at` of a training."""
    model, task = small_problem()

    def progress(done: int, total: int, note: str) -> None:
        if note.startswith("epoch") and done == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    result, traces = apply_pipeline(
        model,
        Pipeline(stages),
        lambda prefix: Context(
            task=task, teacher=model, seed=derive_seed(0, prefix.key), progress=progress
        ),
        fidelity=at,
        cache=PrefixCache(place, 10**9) if place else None,
        on_stage=lambda index, spec: None,
    )
    return state_hash(result), traces


def trainings(details: Any) -> list[dict[str, Any]]:
    """What a trace says of each training of a stage."""
    if isinstance(details, dict):
        own = [details] if "continued" in details else []
        return own + [d for value in details.values() for d in trainings(value)]
    return [d for item in details for d in trainings(item)] if isinstance(details, list) else []


def plan(*stages: StageSpec, at: Fidelity) -> list[tuple[str, float | None]]:
    """Kinds of the stages that run, and epochs that they train: None for all, 0 for none."""
    model, task = small_problem()
    steps = steps_of(Pipeline(stages), task, outline_of(model), at)
    return [
        (s.spec.kind, 0 if not s.stage.training_epochs() else s.epochs and float(s.epochs))
        for s in steps
    ]


def test_the_share_is_one_of_the_whole_pipelines_training() -> None:
    tune, qat = "tune", "quantize.qat"
    pipeline = (TUNE, CUT, QAT)
    assert plan(*pipeline, at=Fidelity(zero_shot=True)) == [(CUT.kind, 0), (qat, 0)]
    assert plan(*pipeline, at=Fidelity(epochs=0.25)) == [(tune, 1.5), (CUT.kind, 0), (qat, 0)]
    assert plan(*pipeline, at=Fidelity(epochs=0.5)) == [(tune, None), (CUT.kind, 0), (qat, 0)]
    assert plan(*pipeline, at=Fidelity(epochs=0.75)) == [(tune, None), (CUT.kind, 0), (qat, 1.5)]
    assert plan(*pipeline, at=FULL) == [(tune, None), (CUT.kind, 0), (qat, None)]


@pytest.mark.parametrize(
    "stages",
    [(CUT, TUNE), (QAT,), (SVD,), (THRICE,)],
    ids=lambda stages: "+".join(s.kind for s in stages),
)
def test_promotions_continue_bit_for_bit(tmp_path: Path, stages: tuple[StageSpec, ...]) -> None:
    steps = 0
    for at in RUNGS:
        found, traces = run(*stages, at=at, place=tmp_path)
        fits = [fit for t in traces if not t.cached for fit in trainings(dict(t.details))]
        assert sum(f["continued"] for f in fits) == steps
        steps = sum(f["steps"] for f in fits)
    whole, traces = run(*stages)
    assert found == whole
    assert steps == sum(f["steps"] for t in traces for f in trainings(dict(t.details)))
    assert not list(tmp_path.glob("*/*.0")), "states leave when the training is done"


def test_a_killed_promotion_is_taken_up_again(tmp_path: Path) -> None:
    """From the state of the lower rung, by another process."""
    run(CUT, TUNE, at=RUNGS[1], place=tmp_path)
    context = multiprocessing.get_context("fork")
    kill = context.Process(target=run, args=(CUT, TUNE), kwargs={"place": tmp_path, "die_at": 9})
    kill.start()
    kill.join(60)
    assert kill.exitcode == -signal.SIGKILL
    found, traces = run(CUT, TUNE, place=tmp_path)
    assert traces[-1].details["continued"] == 5
    assert found == run(CUT, TUNE)[0]


def test_a_damaged_state_costs_time_and_nothing_else(tmp_path: Path) -> None:
    run(CUT, TUNE, at=RUNGS[0], place=tmp_path)
    (state,) = tmp_path.glob("*/*.0")
    content = bytearray((state / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (state / "model.safetensors").write_bytes(content)
    found, traces = run(CUT, TUNE, place=tmp_path)
    assert traces[-1].details["continued"] == 0
    assert found == run(CUT, TUNE)[0]


def test_a_share_of_the_data_is_another_training(tmp_path: Path) -> None:
    """Never continued with all of it; what does not train sees all of it."""
    half = Fidelity(data=0.5)
    part, (_, tune) = run(CUT, TUNE, at=half, place=tmp_path)
    assert tune.details["steps"] == 6
    whole, (cached, again) = run(CUT, TUNE, place=tmp_path)
    assert (cached.cached, again.details["steps"], again.details["continued"]) == (True, 12, 0)
    assert part != whole == run(CUT, TUNE)[0]


def test_the_same_rung_is_read_from_the_cache(tmp_path: Path) -> None:
    first, _ = run(CUT, TUNE, at=RUNGS[0], place=tmp_path)
    again, traces = run(CUT, TUNE, at=RUNGS[0], place=tmp_path)
    assert first == again
    assert [t.cached for t in traces] == [True, True]
