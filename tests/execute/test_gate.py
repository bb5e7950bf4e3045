"""Quality before export, on real builds of a small model."""

from __future__ import annotations

import pytest
from small_study import (
    CUT,
    GOOD,
    OBJECTIVES,
    TIGHT,
    TRAIN,
    Study,
    alone,
    made,
    pipeline,
    scaled,
)

from petra.core.measurement import Measurement
from petra.core.rivals import Rivals
from petra.core.target import Target
from petra.core.trial import GIVEN, Fidelity, Proposal, TrialStatus
from petra.execute import screen
from petra.execute.builder import Builder
from petra.execute.early import NOTHING, Early, Way
from petra.execute.gate import PART, Gate, spans_of, torch_scores
from petra.execute.verdict import Artifact, Judge
from petra.testing.stage_suite import small_problem


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("study"))


@pytest.fixture(autouse=True)
def _any_training_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training of milliseconds too."""
    monkeypatch.setattr(screen, "LEAST_TRAINING_S", 0.001)


# ---- quality before export -----------------------------------------------------------------------


def test_hopeless_quality_is_not_exported(study: Study) -> None:
    trial, steps = study.evaluate(made(11, pipeline(CUT)), study.rivals(GOOD))
    assert trial.status is TrialStatus.SCREENED, trial.failure
    assert trial.failure is not None
    assert (trial.failure.stage, trial.failure.kind) == ("screen", "quality")
    assert "quality >= 0.95" in trial.failure.message
    assert {"quality", "params"} <= set(trial.metrics)
    assert "export" not in steps
    assert not study.assignment.paths.artifact(11).exists()


def test_quality_and_known_costs_together_say_who_is_dominated(study: Study) -> None:
    """By its costs alone it has a chance: it could have the best quality."""
    cheap = scaled(study.baseline.metrics, size_bytes=0.01, latency_ratio=0.01, quality=3.0)
    best = scaled(study.baseline.metrics, quality=10.0)
    rivals = study.rivals(front=(best, cheap))
    trial, _ = study.evaluate(made(13, pipeline(CUT, TRAIN)), rivals)
    assert trial.failure is not None
    assert trial.failure.kind == "quality", trial.failure
    assert "no better than another model" in trial.failure.message
    assert {"quality", "latency_ratio", "size_bytes"} <= set(trial.metrics)


def test_an_audited_candidate_passes_the_gate(study: Study) -> None:
    built = study.build(pipeline(CUT), 14, gate=Gate(study.rivals(GOOD), audit=True))
    assert built.files
    assert built.hopeless is not None
    assert built.hopeless.kind == "quality"
    assert study.build(pipeline(CUT), 15, gate=Gate(study.rivals())).hopeless is None


def test_low_fidelities_are_not_judged_by_their_quality(study: Study) -> None:
    for fidelity in (Fidelity(epochs=0.5), Fidelity(zero_shot=True)):
        low = made(15, pipeline(CUT), fidelity=fidelity)
        assert Early(study.assignment, low, study.rivals(GOOD)).gate(NOTHING) is None


def test_what_a_person_gave_to_begin_with_is_never_left(study: Study) -> None:
    rivals = study.rivals(TIGHT, GOOD)
    given = Early(study.assignment, Proposal(16, pipeline(CUT, TRAIN), GIVEN), rivals)
    way = Way(study.here, study.assignment.paths.artifact(16), 60, 0, lambda note: None, alone)
    builder = Builder(study.here, study.assignment.limits)
    judge = Judge(study.here, study.assignment.paths.data, study.assignment.limits, "here")
    opponent = Artifact(study.assignment.paths.root / study.baseline.artifact, Target())
    assert given.costs(builder, judge, opponent, way) is NOTHING
    assert given.gate(NOTHING) is None


def test_what_is_left_out_widens_what_quality_may_be() -> None:
    rivals = Rivals(OBJECTIVES, (), {"quality": Measurement(0.8)})
    scores = {"quality": Measurement(0.7, 0.02, 300), "own": Measurement(1.0, 0.1)}
    whole = spans_of(scores, rivals, share=1.0, quantized=False)
    assert set(whole) == {"quality"}
    assert whole["quality"].high == pytest.approx(0.708)
    part = spans_of(scores, rivals, share=0.75, quantized=True)["quality"]
    assert part.high == pytest.approx(0.7 + 0.03 + 0.016)
    assert spans_of({"quality": Measurement(0.7)}, rivals, share=0.5, quantized=False) == {}


def test_a_large_split_is_judged_by_the_same_part_for_all(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = small_problem()
    payload = study.assignment.payload
    whole, share = torch_scores(payload, model)
    assert share == 1.0
    assert PART >= 1000
    assert whole["quality"].n == 32
    monkeypatch.setattr("petra.execute.gate.PART", 20)
    part, share = torch_scores(payload, model)
    assert share == 20 / 32
    assert part["quality"].n == 20
    assert part == torch_scores(payload, model)[0]
