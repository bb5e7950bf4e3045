"""Costs before training, on real builds of a small model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from small_study import (
    CUT,
    GOOD,
    INT8,
    RANKED,
    TIGHT,
    TRAIN,
    Here,
    Study,
    made,
    pipeline,
    scaled,
    spec,
)

from petra.config import SavingsConfig
from petra.core.measurement import Measurement
from petra.core.objective import Constraint
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import FULL, Fidelity, TrialStatus
from petra.execute import screen
from petra.execute.early import NOTHING, built_after
from petra.execute.screen import Plan, plan, timed_spans


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("study"))


@pytest.fixture(autouse=True)
def _any_training_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training of milliseconds too."""
    monkeypatch.setattr(screen, "LEAST_TRAINING_S", 0.001)


# ---- costs before training -----------------------------------------------------------------------


def test_what_is_too_large_is_left_before_it_is_trained(study: Study) -> None:
    tried = pipeline(CUT, TRAIN)
    trial, steps = study.evaluate(made(1, tried), study.rivals(TIGHT))
    assert trial.status is TrialStatus.SCREENED, trial.failure
    assert trial.failure is not None
    assert (trial.failure.stage, trial.failure.kind) == ("screen", "constraint")
    assert "size_bytes <= 20000" in trial.failure.message
    assert [t.stage for t in trial.trace] == ["prune.structured"]
    assert set(trial.metrics) == {"size_bytes", "params", "macs"}, "its latency cannot matter"
    assert steps == ["screen"]
    assert not study.assignment.paths.artifact(1).exists()
    full = study.build(tried, 2)
    assert full.trace[0].cached, "what ran before training is not run again"
    assert full.params == trial.metrics["params"].mean
    assert full.macs == trial.metrics["macs"].mean
    assert full.size_bytes == pytest.approx(trial.metrics["size_bytes"].mean, rel=1e-3)


def test_what_a_rival_beats_is_left_after_a_coarse_timing(study: Study) -> None:
    better = scaled(study.baseline.metrics, size_bytes=0.01, latency_ratio=0.01)
    trial, _ = study.evaluate(made(3, pipeline(CUT, TRAIN)), study.rivals(front=(better,)))
    assert trial.status is TrialStatus.SCREENED, trial.failure
    assert trial.failure is not None
    assert trial.failure.kind == "dominated"
    ratio = trial.metrics["latency_ratio"]
    assert ratio.mean > 0
    assert ratio.n <= 10
    assert {m.host for m in trial.metrics.values()} == {"here"}


@pytest.mark.slow
def test_one_that_has_a_chance_is_as_without_the_screen(study: Study) -> None:
    """Weights bit for bit; its prefix is not run twice, nor are its seconds forgotten."""
    cut, rivals = CUT.replace(p=1), study.rivals(Constraint.parse("size <= 200 kB"))
    tried = pipeline(cut, TRAIN, INT8)
    early, screened = study.early(tried, 4, rivals)
    assert screened.found is None
    assert screened.known["size_bytes"].high < 200_000
    assert early.gate(screened) is not None
    built = study.build(tried, 4)
    assert built.trace[0].cached
    kept = built_after(screened, built)
    assert [t.cached for t in kept.trace] == [False, False, False]
    assert kept.train_s == pytest.approx(built.train_s + screened.trace[0].seconds)
    study.here = Here(replace(study.assignment.payload, cache_bytes=0))
    alone_built = study.build(tried, 5)
    study.here = Here(study.assignment.payload)
    assert alone_built.reference.sha256 == built.reference.sha256
    assert [t.touched for t in alone_built.trace] == [t.touched for t in kept.trace]


@pytest.mark.slow  # it is measured
def test_an_audited_candidate_is_evaluated_all_the_same(study: Study) -> None:
    tried = pipeline(CUT, TRAIN, audit=True)
    trial, _ = study.evaluate(made(6, tried), study.rivals(TIGHT))
    assert trial.measured, trial.failure
    *ran, said = trial.trace
    assert [t.stage for t in ran] == ["prune.structured", "tune"]
    assert (said.stage, said.details["audit"]) == ("screen", "constraint")
    assert "20000" in str(said.details["reason"])


@pytest.mark.slow  # it is measured
def test_with_the_switches_off_all_are_evaluated(study: Study) -> None:
    off = SavingsConfig(screen=False, quality_gate=False, learning_curves=False)
    trial, steps = study.evaluate(made(7, pipeline(CUT, TRAIN)), study.rivals(TIGHT, GOOD), off)
    assert trial.measured, trial.failure
    assert steps[:3] == ["prune.structured", "tune", "export"]


# ---- who is screened, and when -------------------------------------------------------------------


def planned(study: Study, *stages: StageSpec, **changes: Any) -> Plan:
    payload = replace(study.assignment.payload, **changes)
    return plan(Pipeline(stages), payload, study.rivals(TIGHT))


def test_costs_are_asked_for_as_soon_as_training_does_not_change_them(study: Study) -> None:
    """A third of the epochs come before the cut that depends on them."""
    zero, longer = Fidelity(zero_shot=True), TRAIN.replace(epochs=2)
    assert planned(study, CUT, TRAIN).fidelity == zero
    assert planned(study, RANKED, TRAIN).fidelity == zero
    assert planned(study, TRAIN, CUT, TRAIN).fidelity == zero
    assert planned(study, TRAIN, RANKED, longer).fidelity == Fidelity(epochs=1 / 3)
    assert planned(study, TRAIN, INT8).fidelity == zero
    assert "0.0 s of training" in planned(study, TRAIN, INT8.replace(keep_float=1)).why_not


def test_costs_that_depend_on_training_are_those_of_the_trained(study: Study) -> None:
    tried = pipeline(TRAIN, RANKED, TRAIN)
    trial, _ = study.evaluate(made(8, tried), study.rivals(TIGHT))
    assert trial.status is TrialStatus.SCREENED, trial.failure
    assert [t.stage for t in trial.trace] == ["tune", "prune.structured"]
    full = study.build(tried, 9)
    assert full.params == trial.metrics["params"].mean
    assert [t.cached for t in full.trace] == [True, True, False]


def test_nobody_is_screened_where_it_would_cost_more_than_it_saves(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = study.assignment.payload
    alone_on_the_front = plan(pipeline(CUT, TRAIN), payload, study.rivals())
    assert "neither constraints nor rivals" in alone_on_the_front.why_not
    assert planned(study, CUT).why_not == "0.0 s of training are left once its costs are known"
    assert planned(study, TRAIN).why_not == "it does nothing but train"
    assert "no cache" in planned(study, TRAIN, RANKED, TRAIN, cache_bytes=0).why_not
    assert planned(study, CUT, TRAIN, cache_bytes=0).fidelity is not None
    monkeypatch.setattr(screen, "LEAST_TRAINING_S", 5.0)
    assert "are left once its costs" in planned(study, CUT, TRAIN).why_not


def test_a_failure_that_training_might_prevent_is_not_believed(study: Study) -> None:
    """Then nobody knows its costs, and it fails where it fails in full."""
    tried = Pipeline((CUT, TRAIN, spec("prune.heads")))
    _, screened = study.early(tried, 10, study.rivals(TIGHT))
    assert screened is NOTHING
    trial, _ = study.evaluate(made(10, tried), study.rivals(TIGHT))
    assert trial.status is TrialStatus.FAILED
    assert trial.failure is not None
    assert trial.failure.stage == "prune.heads"


def test_low_fidelities_are_screened_when_they_train_more_than_that(study: Study) -> None:
    zero = Fidelity(zero_shot=True)
    assert screen.more(FULL, zero)
    assert screen.more(Fidelity(epochs=0.5), zero)
    assert not screen.more(zero, zero)
    assert not screen.more(Fidelity(epochs=0.3), Fidelity(epochs=0.4))


def test_milliseconds_are_hoped_for_at_the_best_time_of_the_machine() -> None:
    timed = {
        "latency_ratio": Measurement(0.5, 0.01),
        "latency_ms": Measurement(8.0, 0.1),
        "memory_mb": Measurement(20.0),
    }
    spans = timed_spans(timed, {"latency_ms": Measurement(4.0)})
    assert spans["latency_ratio"].low == pytest.approx(0.48 * 0.85)
    assert spans["latency_ms"].low == pytest.approx(0.48 * 0.85 * 4.0)
    assert spans["latency_ms"].high == pytest.approx(8.2 * 1.15)
    assert spans["latency_p95_ms"].low == spans["latency_ms"].low
