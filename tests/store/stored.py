"""What tests of the store share."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from petra.core.errors import StoreError
from petra.core.measurement import Measurement
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import (
    Trial,
    TrialStatus,
)
from petra.store import layout
from petra.store.store import Store

CONFIG = {
    "seed": 3,
    "objectives": ["quality", "latency"],
    "budget_s": 60.5,
    "note": None,
    "nested": {"é": [1, 2.5]},
}
HOST = {"cpu": "some cpu", "cores": 2}


def make_trial(number: int, **changes: object) -> Trial:
    pipeline = Pipeline((StageSpec("tune", {"epochs": number + 1, "lr": 0.1}),) if number else ())
    metrics = {
        "quality": Measurement(0.9, 0.01, 100, "", "h"),
        "size_bytes": Measurement(1000.0, unit="B"),
    }
    fields = {"pipeline": pipeline, "status": TrialStatus.COMPLETE, "metrics": metrics, **changes}
    return Trial(number=number, **fields)  # type: ignore[arg-type]


def refused(directory: Path, *, write: bool = False) -> StoreError:
    with pytest.raises(StoreError) as caught:
        Store.open(directory, write=write)
    assert caught.value.hint
    assert str(directory) in caught.value.message
    return caught.value


def edited(store: Store, statement: str) -> None:
    raw = sqlite3.connect(store.directory / layout.DATABASE_FILE)
    with raw:
        raw.execute(statement)
    raw.close()


def read_all(directory: Path) -> None:
    with Store.open(directory, write=False) as reader:
        reader.trials(), reader.proposals()
        _ = reader.note("stop"), reader.config, reader.host, reader.elapsed()
