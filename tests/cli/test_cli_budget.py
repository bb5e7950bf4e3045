"""How `resume` understands a larger budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from petra.cli.budget import extended, is_finished
from petra.report.record import StudyRecord
from petra.testing.studies import toy_study


@pytest.fixture
def record(tmp_path: Path) -> StudyRecord:
    """Twelve of twelve trials done, in 100 seconds."""
    return replace(StudyRecord.load(toy_study(tmp_path, trials=12)), elapsed_s=100.0)


def limits(record: StudyRecord, time: str | None, trials: str | None) -> tuple[object, object]:
    budget = extended(record, time, trials)
    assert budget is not None
    return budget["time"], budget["trials"]


def test_a_budget_is_a_new_total_or_an_addition(record: StudyRecord) -> None:
    assert is_finished(record)
    assert extended(record, None, None) is None
    assert limits(record, None, "50") == (None, 50)
    assert limits(record, None, "+5") == (None, 17)
    assert limits(record, "1 h", "20") == (3600.0, 20)


def test_a_spent_limit_that_is_not_raised_is_lifted(record: StudyRecord) -> None:
    assert limits(record, "+1 min", None) == (160.0, None)


def test_an_unspent_limit_stays(record: StudyRecord) -> None:
    config = record.config.model_copy(
        update={"budget": record.config.budget.model_copy(update={"trials": 30, "time": 200.0})}
    )
    unspent = replace(record, config=config)
    assert not is_finished(unspent)
    assert limits(unspent, "+1 min", None) == (260.0, 30)
