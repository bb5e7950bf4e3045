"""Costs before training and quality before export, on real builds of a small model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from petra.config import SavingsConfig
from petra.core.measurement import Measurement
from petra.core.notes import StepBegan, WorkerNote
from petra.core.objective import Constraint, Metrics, named_objectives
from petra.core.pipeline import Pipeline, StageSpec, Value
from petra.core.rivals import Rivals
from petra.core.target import Target
from petra.core.trial import FULL, Fidelity, Proposal, Trial, TrialStatus
from petra.execute import screen
from petra.execute.build import BuildPayload, prepare
from petra.execute.builder import Builder
from petra.execute.built import Built
from petra.execute.early import NOTHING, Early, Way, built_after
from petra.execute.evaluate import Evaluator
from petra.execute.gate import PART, Gate, spans_of, torch_scores
from petra.execute.prospects import audited
from petra.execute.screen import Plan, Screened, plan, timed_spans
from petra.execute.verdict import Artifact, Judge
from petra.methods.table import STAGES
from petra.testing.executor_suite import small_assignment
from petra.testing.stage_suite import small_problem

OBJECTIVES = named_objectives(("quality", "latency_ratio", "size_bytes"))
TIGHT = Constraint.parse("size <= 20 kB")
GOOD = Constraint.parse("quality >= 0.95")
ALL = SavingsConfig()


class Here:
    """Calls in this process."""

    closed, peak_memory_mb = False, 0.0

    def __init__(self, payload: BuildPayload) -> None:
        self._payload = prepare(payload)

    def call(self, function: Callable[..., Any], *args: object, **limits: Any) -> Any:
        return function(self._payload, limits.get("on_note") or (lambda note: None), *args)


def spec(kind: str, **params: Value) -> StageSpec:
    return STAGES.get(kind).card().normalize(params)


TRAIN = spec("tune", epochs=1, lr=1e-3)
CUT = spec("prune.structured", ratio=0.5, spread="per_layer", round_to=4)
RANKED = spec("prune.structured", ratio=0.5, spread="global", round_to=4)
INT8 = spec("quantize.static", samples=128)


def pipeline(*stages: StageSpec, audit: bool = False) -> Pipeline:
    """Of these stages, with a ratio or a rate that makes it one that is audited, or not."""
    for n in range(200):
        changes = {"tune": {"lr": 1e-3 + n * 1e-6}, "prune.structured": {"ratio": 0.5 + n * 1e-6}}
        made = Pipeline(tuple(s.replace(**changes.get(s.kind, {})) for s in stages))
        if audited(0, made) == audit:
            return made
    raise AssertionError


class Study:
    """The small problem, its untouched model exported, and candidates at will."""

    def __init__(self, place: Path) -> None:
        given = small_assignment(place)
        payload = replace(given.payload, cache=place / "cache", cache_bytes=2**28)
        self.assignment = replace(given, payload=payload)
        self.here = Here(payload)
        Evaluator(self.assignment).write("val", self.here)
        built = self.build(Pipeline(), 0)
        counted = {"size_bytes": built.size_bytes, "params": built.params, "macs": built.macs}
        found = {"quality": 0.3, "latency_ratio": 1.0, "latency_ms": 0.2, **counted}
        metrics = {name: Measurement(float(value)) for name, value in found.items()}
        artifact = self.assignment.paths.artifact(0) / built.files[0].name
        self.baseline = Proposal(0, Pipeline()).ended(
            TrialStatus.COMPLETE, metrics=metrics, artifact=str(artifact.relative_to(place))
        )

    def build(self, tried: Pipeline, number: int, **changes: Any) -> Built:
        """What comes of it in full."""
        builder = Builder(self.here, self.assignment.limits)
        return builder.build(tried, Target(), self.assignment.paths.artifact(number), **changes)

    def early(self, tried: Pipeline, number: int, rivals: Rivals) -> tuple[Early, Screened]:
        """What the screen says of it, when it does not leave it."""
        early = Early(self.assignment, Proposal(number, tried), rivals)
        way = Way(
            self.here, self.assignment.paths.artifact(number), 60, 0, lambda note: None, alone
        )
        builder = Builder(self.here, self.assignment.limits)
        judge = Judge(self.here, self.assignment.paths.data, self.assignment.limits, "here")
        opponent = Artifact(self.assignment.paths.root / self.baseline.artifact, Target())
        return early, early.costs(builder, judge, opponent, way)

    def evaluate(
        self, proposal: Proposal, rivals: Rivals, savings: SavingsConfig = ALL
    ) -> tuple[Trial, list[str]]:
        """And the steps that were told of."""
        heard: list[WorkerNote] = []
        evaluator = Evaluator(replace(self.assignment, savings=savings))
        evaluator.baseline = self.baseline
        trial = evaluator.evaluate(
            proposal, self.here, rivals=rivals, remaining_s=None, on_note=heard.append, alone=alone
        )
        return trial, [note.name for note in heard if isinstance(note, StepBegan)]

    def rivals(self, *constraints: Constraint, front: tuple[Metrics, ...] = ()) -> Rivals:
        known = self.baseline.metrics
        return Rivals(OBJECTIVES, constraints, known, (known, *front), {"latency_ratio": 99.0})


@contextmanager
def alone() -> Iterator[None]:
    yield


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("study"))


@pytest.fixture(autouse=True)
def _any_training_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training of milliseconds too."""
    monkeypatch.setattr(screen, "LEAST_TRAINING_S", 0.001)


def scaled(metrics: Metrics, **factors: float) -> Metrics:
    return {
        name: replace(m, mean=m.mean * factors.get(name, 1.0), stderr=0.0)
        for name, m in metrics.items()
    }


# ---- costs before training -----------------------------------------------------------------------


def test_what_is_too_large_is_left_before_it_is_trained(study: Study) -> None:
    tried = pipeline(CUT, TRAIN)
    trial, steps = study.evaluate(Proposal(1, tried), study.rivals(TIGHT))
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
    trial, _ = study.evaluate(Proposal(3, pipeline(CUT, TRAIN)), study.rivals(front=(better,)))
    assert trial.status is TrialStatus.SCREENED, trial.failure
    assert trial.failure is not None
    assert trial.failure.kind == "dominated"
    ratio = trial.metrics["latency_ratio"]
    assert ratio.mean > 0
    assert ratio.n <= 10
    assert {m.host for m in trial.metrics.values()} == {"here"}


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
    trial, _ = study.evaluate(Proposal(6, tried), study.rivals(TIGHT))
    assert trial.measured, trial.failure
    *ran, said = trial.trace
    assert [t.stage for t in ran] == ["prune.structured", "tune"]
    assert (said.stage, said.details["audit"]) == ("screen", "constraint")
    assert "20000" in str(said.details["reason"])


@pytest.mark.slow  # it is measured
def test_with_the_switches_off_all_are_evaluated(study: Study) -> None:
    off = SavingsConfig(screen=False, quality_gate=False, learning_curves=False)
    trial, steps = study.evaluate(Proposal(7, pipeline(CUT, TRAIN)), study.rivals(TIGHT, GOOD), off)
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
    trial, _ = study.evaluate(Proposal(8, tried), study.rivals(TIGHT))
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
    trial, _ = study.evaluate(Proposal(10, tried), study.rivals(TIGHT))
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


# ---- quality before export -----------------------------------------------------------------------


def test_hopeless_quality_is_not_exported(study: Study) -> None:
    trial, steps = study.evaluate(Proposal(11, pipeline(CUT)), study.rivals(GOOD))
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
    trial, _ = study.evaluate(Proposal(13, pipeline(CUT, TRAIN)), rivals)
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
        low = Proposal(15, pipeline(CUT), fidelity=fidelity)
        assert Early(study.assignment, low, study.rivals(GOOD)).gate(NOTHING) is None


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
