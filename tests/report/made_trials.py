"""Fronts of trials made by hand."""

from __future__ import annotations

from pathlib import Path

from petra.core.measurement import Measurement
from petra.core.objective import Constraint, named_objectives
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import Trial, TrialStatus
from petra.front import Front
from petra.report.study_front import StudyFront

OBJECTIVES = named_objectives(("quality", "latency_ratio", "size_bytes"), maximize_quality=True)


def made(
    number: int,
    quality: float,
    latency: float,
    size: float,
    *,
    noise: float = 0.0,
    **changes: object,
) -> Trial:
    pipeline = Pipeline((StageSpec("tune", {"epochs": number}),)) if number else Pipeline()
    metrics = {
        "quality": Measurement(quality, 0.01, 500, "accuracy"),
        "latency_ratio": Measurement(latency, noise, 20, "x"),
        "latency_ms": Measurement(0.5 * latency, 0.0, 20, "ms"),
        "size_bytes": Measurement(size, unit="B"),
        "params": Measurement(size / 4),
        "macs": Measurement(size),
        "memory_mb": Measurement(20.0, unit="MB"),
        "throughput": Measurement(1000 / latency, unit="items/s"),
        "throughput_ratio": Measurement(1 / latency, unit="x"),
    }
    fields = {"status": TrialStatus.COMPLETE, "metrics": metrics, **changes}
    return Trial(number, pipeline, **fields)  # type: ignore[arg-type]


def front(
    *trials: Trial, constraints: tuple[str, ...] = (), objectives: tuple = OBJECTIVES
) -> StudyFront:
    found = Front.of(trials, objectives, [Constraint.parse(c) for c in constraints])
    return StudyFront(**vars(found), directory=Path("nowhere"))


BASE = made(0, 0.9, 1.0, 1000.0)
