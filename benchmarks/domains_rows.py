"""What a finished study of a workload comes to: the untouched model, and the picks from its front.

Choosing looks at the validation split and at costs alone; what is reported is from the test split.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from petra.core.measurement import Measurement
from petra.core.metric import QUALITY
from petra.core.paired import score_change
from petra.core.trial import Trial
from petra.core.whole import write_whole
from petra.front import Front, confirmed
from petra.report.pipeline_text import pipeline_in_words
from petra.report.record import StudyRecord
from petra.search.scaling import scale
from petra.workloads.workload import Workload

WITHIN_1, WITHIN_4 = "best within 1%", "smallest within 4%"
TINY, SMALL = "best at 0.10 of the bytes, 0.33 of the latency", "best at 0.30 of the bytes"
DEFAULT, CONSERVATIVE, UNQUANTIZED = "default", "conservative", "without quantization"

Span = tuple[float, float, float]
"""A number and its 95% interval."""


@dataclass(frozen=True)
class Pick:
    """A model of the front: its quality on the test split, how much more of it than the untouched
    model has, both in the metric's own unit, and costs relative to the untouched model's.
    """

    number: int
    pipeline: str
    quality: Span
    change: Span
    size: float
    latency: Span
    throughput: Span


@dataclass(frozen=True)
class Row:
    """A workload searched in one space."""

    workload: str
    variant: str
    metric: str
    maximize: bool
    baseline: Span
    published: str
    place: str
    picks: dict[str, Pick]
    trials: int
    minutes: float
    hypervolume: float
    host: str

    @property
    def key(self) -> str:
        return f"{self.workload}, {self.variant}"

    def loss(self, pick: Pick) -> Span:
        """Quality lost as a share of the untouched model's, negative for a gain."""
        sign = -1.0 if self.maximize else 1.0
        ends = sorted(sign * c / abs(self.baseline[0]) for c in pick.change[1:])
        return sign * pick.change[0] / abs(self.baseline[0]), ends[0], ends[1]


def span(found: Measurement) -> Span:
    return (found.mean, *found.interval)


def row_of(record: StudyRecord, workload: Workload, variant: str) -> Row | None:
    """The row of a finished study, None of one whose untouched model has no test measurement."""
    front = record.front()
    base = front.baseline
    if base is None or QUALITY not in base.test:
        return None
    reached, published = base.test[QUALITY], workload.published
    chosen = {name: pick(front, name) for name in (WITHIN_1, WITHIN_4, TINY, SMALL)}
    return Row(
        workload=workload.name,
        variant=variant,
        metric=record.metric,
        maximize=record.maximize,
        baseline=span(reached),
        published="" if published is None else str(published),
        place=""
        if published is None
        else published.place(reached.mean, maximize=workload.maximize),
        picks={name: made(front, trial) for name, trial in chosen.items() if trial is not None},
        trials=sum(t.number > 0 for t in record.trials),
        minutes=record.elapsed_s / 60,
        hypervolume=scale(record.objectives, record.constraints, base).hypervolume(front.members),
        host=str(record.host["id"]),
    )


def pick(front: Front, name: str) -> Trial | None:
    """The member that a name stands for, None where there is none; never the untouched model.

    "best within 1%": of those that lose at most 1% of the untouched model's validation quality the
    one with the least product of size and latency ratios. "smallest within 4%": the fewest bytes at
    a loss of 4% at most. The others: the best validation quality within these costs.
    """
    found = [t for t in front.members if t.number and t.test]
    if name == WITHIN_1:
        near = [t for t in found if lost(front, t) <= 0.01]
        return min(near, key=lambda t: size(front, t) * latency(t), default=None)
    if name == WITHIN_4:
        near = [t for t in found if lost(front, t) <= 0.04]
        return min(near, key=lambda t: (size(front, t), latency(t)), default=None)
    most, slowest = (0.10, 0.33) if name == TINY else (0.30, float("inf"))
    near = [t for t in found if size(front, t) <= most and latency(t) <= slowest]
    return min(near, key=lambda t: lost(front, t), default=None)


def lost(front: Front, trial: Trial) -> float:
    """Validation quality lost, as a share of the untouched model's."""
    assert front.baseline is not None
    old, new = front.baseline.metrics[QUALITY].mean, trial.metrics[QUALITY].mean
    return (old - new if front.maximize_quality else new - old) / abs(old)


def size(front: Front, trial: Trial) -> float:
    """Bytes over the untouched model's."""
    assert front.baseline is not None
    return trial.metrics["size_bytes"].mean / front.baseline.metrics["size_bytes"].mean


def latency(trial: Trial) -> float:
    return confirmed(trial, "latency_ratio").mean


def made(front: Front, trial: Trial) -> Pick:
    assert front.baseline is not None
    change = score_change(trial.test, front.baseline.test, QUALITY)
    assert change is not None
    return Pick(
        number=trial.number,
        pipeline=pipeline_in_words(trial.pipeline),
        quality=span(trial.test[QUALITY]),
        change=span(change),
        size=size(front, trial),
        latency=span(trial.test["latency_ratio"]),
        throughput=span(trial.test["throughput_ratio"]),
    )


class Rows:
    """Rows in a JSON file, one for each workload and space."""

    def __init__(self, path: Path) -> None:
        self.path = path
        known = json.loads(path.read_text()) if path.exists() else []
        self.rows = {row.key: row for row in map(_read, known)}

    def put(self, row: Row) -> None:
        self.rows[row.key] = row
        text = json.dumps([asdict(r) for r in self.sorted()], indent=1)
        write_whole(self.path, text + "\n")

    def sorted(self) -> list[Row]:
        return sorted(self.rows.values(), key=lambda row: (row.variant, row.workload))


def _spans(data: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}


def _read(data: dict[str, Any]) -> Row:
    picks = {name: Pick(**_spans(pick)) for name, pick in data["picks"].items()}
    return Row(**{**data, "picks": picks, "baseline": tuple(data["baseline"])})


def of(rows: Iterable[Row], variant: str) -> Sequence[Row]:
    return [row for row in rows if row.variant == variant]
