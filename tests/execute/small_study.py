"""A small model with its data, exported, and candidates at will."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from petra.config import SavingsConfig
from petra.core.measurement import Measurement
from petra.core.notes import StepBegan, WorkerNote
from petra.core.objective import Constraint, Metrics, named_objectives
from petra.core.pipeline import Pipeline, StageSpec, Value
from petra.core.rivals import Rivals
from petra.core.target import Target
from petra.core.trial import Origin, Proposal, Trial, TrialStatus
from petra.execute.build import BuildPayload, prepare
from petra.execute.builder import Builder
from petra.execute.built import Built
from petra.execute.early import Early, Way
from petra.execute.evaluate import Evaluator
from petra.execute.prospects import audited
from petra.execute.screen import Screened
from petra.execute.verdict import Artifact, Judge
from petra.methods.table import STAGES
from petra.testing.executor_suite import small_assignment

OBJECTIVES = named_objectives(("quality", "latency_ratio", "size_bytes"))
TIGHT = Constraint.parse("size <= 20 kB")
GOOD = Constraint.parse("quality >= 0.95")
ALL = SavingsConfig()


def made(number: int, tried: Pipeline, **changes: Any) -> Proposal:
    """A proposal of the search's own."""
    return Proposal(number, tried, **{"origin": Origin(("sample",)), **changes})


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
        early = Early(self.assignment, made(number, tried), rivals)
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


def scaled(metrics: Metrics, **factors: float) -> Metrics:
    return {
        name: replace(m, mean=m.mean * factors.get(name, 1.0), stderr=0.0)
        for name, m in metrics.items()
    }
