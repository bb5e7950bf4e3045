"""The recorded evaluations, as trials."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petra.core.measurement import Measurement
from petra.core.pipeline import Pipeline
from petra.core.trial import Failure, Fidelity, Origin, Trial, TrialStatus

HERE = Path(__file__).parent / "recorded"


@dataclass(frozen=True)
class Row:
    """One evaluation: the trial, which study it is from, and its seconds by phase."""

    trial: Trial
    source: str
    phases: dict[str, float]


@dataclass(frozen=True)
class Recorded:
    """One workload: `about` is the first line of its file, `baseline` the untouched model of the
    first study.
    """

    about: dict[str, Any]
    rows: tuple[Row, ...]

    @property
    def baseline(self) -> Trial:
        return next(row.trial for row in self.rows if row.trial.number == 0)

    def whole(self) -> list[Row]:
        """Evaluations in full, each pipeline once."""
        found: dict[Pipeline, Row] = {}
        for row in self.rows:
            if row.trial.fidelity.full and row.trial.number:
                found.setdefault(row.trial.pipeline, row)
        return list(found.values())


def recorded(workload: str) -> Recorded:
    """What was gathered of a workload."""
    with gzip.open(HERE / f"{workload}.jsonl.gz", "rt") as file:
        about, *rows = map(json.loads, file)
    return Recorded(about, tuple(map(_row, rows)))


def _row(row: dict[str, Any]) -> Row:
    trial = Trial(
        row["number"],
        Pipeline.from_list(row["pipeline"]),
        TrialStatus(row["status"]),
        Origin(tuple(row["moves"])),
        Fidelity(**row["fidelity"]),
        metrics={name: Measurement(m, e, n) for name, (m, e, n) in row["metrics"].items()},
        failure=Failure(**row["failure"]) if row["failure"] else None,
        seconds=row["seconds"],
    )
    return Row(trial, row["source"], row["phases"])
