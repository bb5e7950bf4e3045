"""The benchmarks of fine-tuning: a space in several spellings, counts replayed, tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from petra.core.measurement import Measurement
from petra.core.objective import Objective
from petra.core.pipeline import Pipeline
from petra.core.rng import generator
from petra.core.trial import Proposal, Trial, TrialStatus
from petra.search.base import Problem
from petra.space.domains import BOOLEAN, Choice
from petra.space.effects import Effects
from petra.space.ladder import Ladder
from petra.space.parameters import Parameter
from petra.space.space import Space, StageCard

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = ("peft_entangled", "peft_replay", "peft_tables", "peft_problem", "search_problems")


@pytest.fixture(autouse=True, scope="module")
def _scripts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield
        for name in SCRIPTS:
            sys.modules.pop(name, None)


SIZES = Ladder((0, 1, 3, 6, 12, 24))
ON = SIZES.values[1:]
SPACE = Space(
    {
        "adapt": StageCard(
            "adapt",
            (
                Parameter("serial", 0, SIZES, SIZES, "serial"),
                Parameter("prefix", 6, SIZES, SIZES, "prefix"),
                Parameter("scale", 1, Choice((1, 2)), Choice((1, 2)), "scale", {"serial": ON}),
                *(Parameter(f"layer.{i}", True, BOOLEAN, BOOLEAN, "on") for i in range(4)),
            ),
            Effects(),
        )
    },
    max_length=1,
)
OBJECTIVES = (Objective("quality", True), Objective("trainable_params", False))


def drawn(seed: int) -> Pipeline:
    return SPACE.sample(generator(seed, "spellings"))


def count(pipeline: Pipeline) -> int:
    p = pipeline.stages[0].params
    blocks = sum(bool(p[f"layer.{i}"]) for i in range(4))
    serial, prefix = int(p["serial"]), int(p["prefix"])
    return blocks * ((2 * 8 * serial + serial + 8 if serial else 0) + 16 * prefix)


def trial(number: int, pipeline: Pipeline) -> Trial:
    metrics = {
        "quality": Measurement(0.7 + 1e-4 * count(pipeline) ** 0.5, 0.01, 100),
        "trainable_params": Measurement(float(count(pipeline))),
    }
    return Proposal(number, pipeline).ended(TrialStatus.COMPLETE, metrics=metrics)


@pytest.mark.parametrize("seed", range(40))
def test_every_pipeline_is_the_same_one_in_every_spelling(seed: int) -> None:
    import peft_entangled

    pipeline = drawn(seed)
    for spelling in peft_entangled.spellings(SPACE):
        own = spelling.of_study(pipeline)
        assert spelling.space.normalize(own) == own
        assert spelling.to_study(own) == pipeline
        there = spelling.space.sample(generator(seed, "there"))
        back = spelling.to_study(there)
        assert SPACE.normalize(back) == back
        assert spelling.of_study(back) == there


def test_bits_leave_modules_out_half_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import peft_entangled

    monkeypatch.setattr(peft_entangled, "DRAWS", 1000)
    names, ladder, bits = peft_entangled.spellings(SPACE)
    first = [float(peft_entangled.draws(SPACE, s)[3:].partition("%")[0]) for s in (names, ladder)]
    assert all(abs(f - 100 / 36) < 2 for f in first), first
    assert abs(float(peft_entangled.draws(SPACE, bits)[3:].partition("%")[0]) - 25) < 5


def test_counts_are_exact_for_pipelines_that_nobody_evaluated() -> None:
    import peft_replay

    baseline = Trial(0, Pipeline(), TrialStatus.COMPLETE, metrics=trial(0, drawn(0)).metrics)
    known = peft_replay.Recorded(
        Problem(SPACE, OBJECTIVES), baseline, tuple(trial(i + 1, drawn(i)) for i in range(60))
    )
    replay = peft_replay.Replay(known)
    for seed in range(1000, 1040):
        assert replay.count(drawn(seed)) == pytest.approx(count(drawn(seed)), abs=1e-6)
    assert "rank correlation" in peft_replay.held_out(known)
    curve = peft_replay.volumes(replay.case(), "uniform", {}, 0, 12)
    assert len(curve) == 12
    assert (curve[1:] >= curve[:-1]).all()


def made(task: str, name: str, seed: int, test: float) -> Any:
    import peft_problem

    setting = asdict(peft_problem.Setting())
    return peft_problem.Row(task, name, seed, test, test, 0.008, 1.0, [], setting)


def test_tables_say_means_and_who_is_better(tmp_path: Path) -> None:
    import peft_problem
    import peft_tables

    place = tmp_path / "rows.jsonl"
    rows = [
        made(task, name, seed, base + 0.01 * seed)
        for task in ("rte", "mrpc")
        for name, base in (
            ("full fine-tuning", 0.70),
            ("LoRA", 0.66),
            ("prefix", 0.60),
            (peft_tables.SMALL, 0.71),
        )
        for seed in range(3)
    ]
    place.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    known = peft_problem.Rows(place)
    assert peft_tables.cell(known.of("rte", "LoRA")) == "67.0 ± 1.0"
    (said,) = peft_tables.verdict(known, ["rte", "mrpc"])
    assert "72.0, full fine-tuning 71.0 (+1.0)" in said
    assert "(LoRA) 67.0 (+5.0)" in said
    text = peft_tables.markdown(
        known, ["# title"], peft_problem.Setting(), tasks=["rte", "mrpc"], trials=60,
        volumes=tmp_path / "none.json",
    )  # fmt: skip
    assert "| LoRA | 0.80% | 67.0 ± 1.0 | 67.0 ± 1.0 | 67.0 |" in text
    assert "No average yet" in "".join(peft_tables.verdict(known, ["rte", "cola"]))
