"""What was trained is read off the traces, and stands wherever a study asks for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from petra.core.measurement import Measurement
from petra.core.metric import METRICS, required_metrics
from petra.core.objective import Constraint, named_objectives
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.rivals import Rivals
from petra.core.target import Target
from petra.core.trial import StageTrace
from petra.execute.account import (
    account,
    trainable_parameters,
    training_memory_mb,
    trains_weights,
)
from petra.execute.costs import Costs
from petra.execute.screen import trains_too_much
from petra.execute.unmerged import with_modules_apart
from petra.report.card import model_card
from petra.report.evidence import Evidence
from petra.report.html import render
from petra.report.metric_text import column_words
from petra.report.page import esc
from petra.report.plain import front_data
from petra.report.record import StudyRecord
from petra.report.study_front import StudyFront
from petra.testing.stage_suite import small_problem
from petra.testing.studies import toy_study
from petra.training.loop import TrainConfig, fit

ASKED = (
    *("trainable_params", "trainable_share", "module_bytes", "train_memory_mb"),
    *("latency_unmerged_ms", "latency_unmerged_ratio"),
)


def trace(**details: object) -> StageTrace:
    return StageTrace("made.up", params_before=1000, peak_memory_mb=300.0, details=details)


ADAPTED = trace(
    adapt={"trainable_parameters": 30, "head_parameters": 5, "share": 0.03, "by_module": {}},
    trained_parameters=35,
)


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([], 0),
        ([trace(ratio=0.5)], 0),
        ([trace(trained_parameters=1000)], 1000),
        ([ADAPTED], 30),
        ([ADAPTED, trace(trained_parameters=35)], 30),  # the same modules and head, once more
        ([ADAPTED, trace(trained_parameters=1030)], 1025),  # all but the head
        ([trace(trained_parameters=1000), ADAPTED], 1000),
        ([trace(training={"rounds": [{"trained_parameters": 7}, {"trained_parameters": 9}]})], 9),
        ([trace(history=[{"removed": 3}, {"tuning": {"trained_parameters": 8}}])], 8),
    ],
)
def test_parameters_are_those_of_the_largest_training(
    stages: list[StageTrace], expected: int
) -> None:
    assert trainable_parameters(stages) == expected
    found = account(stages)
    assert found["trainable_params"].mean == expected
    assert found["trainable_share"].mean == expected / 1000


def test_modules_are_all_that_was_trained_where_nothing_else_was() -> None:
    tuned = trace(tuning={"trained_parameters": 1000})
    assert not trains_weights([ADAPTED, trace(ratio=0.5)])
    assert trains_weights([ADAPTED, tuned])
    assert trains_weights([tuned, ADAPTED])


def test_memory_is_that_of_stages_that_train() -> None:
    assert training_memory_mb([trace(ratio=0.5)]) == 0
    assert training_memory_mb([trace(), trace(trained_parameters=1)]) == 300
    assert training_memory_mb([trace(trained_parameters=1, device_memory_mb=80.0)]) == 80


def test_a_training_says_how_much_it_may_change() -> None:
    model, task = small_problem()
    first = next(model.parameters())
    first.requires_grad_(False)
    found = fit(model, task, TrainConfig(epochs=1, lr=0.01), seed=0).as_details()
    every = sum(p.numel() for p in model.parameters())
    assert found["trained_parameters"] == every - first.numel()
    assert "device_memory_mb" not in found


def test_each_may_be_an_objective_and_a_constraint() -> None:
    assert [o.maximize for o in named_objectives(ASKED)] == [False] * len(ASKED)
    assert Constraint.parse("trainable_share <= 1 %").offset == 0.01
    assert Constraint.parse("trainable_params <= 300 k").offset == 3e5
    assert Constraint.parse("module_bytes <= 2 MB").offset == 2e6
    assert Constraint.parse("train_memory_mb <= 4 GB").offset == 4e3
    assert Constraint.parse("latency_unmerged_ms <= 3 ms").offset == 3


def test_studies_that_do_not_ask_need_none() -> None:
    assert not set(ASKED) & set(required_metrics(["quality"]))
    assert {"module_bytes"} == set(ASKED) & set(required_metrics(["quality", "module_bytes"]))


def test_what_is_asked_stands_in_tables_reports_and_cards(tmp_path: Path) -> None:
    bounds = ["train_memory_mb <= 4 GB", "latency_unmerged_ms <= 9 ms"]
    objectives = ["quality", *ASKED[:3], "latency_unmerged_ratio"]
    place = toy_study(tmp_path / "study", trials=6, objectives=objectives, constraints=bounds)
    front, record = StudyFront.load(place), StudyRecord.load(place)
    trial, html = record.front().members[-1], render(record)
    evidence = Evidence(trial, Target(), {"inputs": [], "outputs": []})
    card = model_card(record.front().baseline, record, "model.onnx", evidence)
    known = json.dumps(front_data(front))
    frame = front.table()
    for name in ASKED:
        metric = METRICS.get(name)
        assert metric.title in card
        assert esc(column_words(metric)) in html
        assert name in known
        assert name in frame.columns
    assert "trainable params" in str(front)
    assert "trainable parameters" not in card.partition("## What is worse")[2]


def test_constraints_on_what_is_trained_are_known_before_training() -> None:
    made = Costs((), 1000, 1000, (ADAPTED,))
    known = {name: Measurement(0.0) for name in (*ASKED, "quality")}
    rivals = Rivals(
        named_objectives(["quality", "trainable_params"]),
        (),
        known,
        front=({"quality": Measurement(0.9), "trainable_params": Measurement(1.0)},),
    )
    for bound, kind in (("20", "constraint"), ("30", ""), ("1 k", "")):
        bounded = replace(rivals, constraints=(Constraint.parse(f"trainable_params <= {bound}"),))
        found = trains_too_much(made, bounded)
        assert (found.kind if found else "") == kind
    share = replace(rivals, constraints=(Constraint.parse("trainable_share <= 2 %"),))
    assert trains_too_much(made, share) is not None
    assert trains_too_much(made, rivals) is None, "more parameters may be better than any rival"


def test_merging_is_left_out_for_the_latency_apart() -> None:
    merged = Pipeline((StageSpec("adapt", {"lora": 2, "merge": True}), StageSpec("tune")))
    apart = with_modules_apart(merged)
    assert apart == Pipeline((StageSpec("adapt", {"lora": 2, "merge": False}), StageSpec("tune")))
    assert with_modules_apart(apart) is None
    assert with_modules_apart(Pipeline()) is None
