"""A front is read without reading all trials, and is the one that all trials give."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from petra.core.errors import StoreError
from petra.core.objective import Objective
from petra.report.plain import front_data
from petra.report.record import StudyRecord
from petra.report.study_front import StudyFront
from petra.store import reading
from petra.store.layout import StudyPaths
from petra.testing.studies import toy_study


@pytest.mark.parametrize(
    ("objectives", "constraints"),
    [
        (("quality", "latency", "size"), ("size <= 0.5 * baseline",)),
        (("size", "memory_mb"), ()),
        (("quality",), ("size <= 1 kB",)),
    ],
)
def test_it_is_the_front_of_all_trials(
    tmp_path: Path, objectives: tuple[str, ...], constraints: tuple[str, ...]
) -> None:
    study = toy_study(
        tmp_path / "toy", trials=30, objectives=objectives, constraints=constraints, seed=3
    )
    quick = front_data(StudyFront.load(study))
    whole = front_data(StudyFront.of_record(StudyRecord.load(study)))
    assert quick == whole


def test_only_trials_that_may_be_on_it_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = toy_study(tmp_path / "toy", trials=40)
    read: list[int] = []
    original = reading.read_trial

    def counted(proposal: object, *args: object, **kwargs: object) -> object:
        read.append(proposal.number)  # type: ignore[attr-defined]
        return original(proposal, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(reading, "read_trial", counted)
    front = StudyFront.load(study)
    front_data(front), str(front), len(front.trials)
    assert {0, *(t.number for t in front.members)} <= set(read)
    assert len(read) < 0.8 * 41
    assert len(list(front.trials)) == len(front.trials) == 41
    assert set(read) == set(range(41))


def test_what_is_shown_is_checked(tmp_path: Path) -> None:
    study = toy_study(tmp_path / "toy", trials=20)
    front = StudyFront.load(study)
    member = next(t.number for t in front.members if t.number)
    leading = {t.number for t in StudyRecord.load(study, whole=False).leading}
    other = next(t.number for t in front.trials if t.measured and t.number not in leading)
    before = front_data(front)

    def edit(number: int) -> None:
        raw = sqlite3.connect(StudyPaths(study).database)
        with raw:
            raw.execute(f"UPDATE measurements SET mean = mean * 0.5 WHERE number = {number}")
        raw.close()

    edit(other)
    seen = StudyFront.load(study)
    assert front_data(seen) == before, "what is shown was not touched"
    with pytest.raises(StoreError, match="its checksum is another"):
        list(seen.trials)
    edit(member)
    with pytest.raises(StoreError, match="its checksum is another"):
        StudyFront.load(study)


def test_costs_of_many_order_like_those_of_one() -> None:
    from petra.core.measurement import Measurement

    rng = np.random.default_rng(0)
    for objective in (Objective("latency_ratio", False), Objective("quality", True)):
        values = np.array([*(rng.random(200) * 0.2 + 0.9), 0.0, -1.0])
        one = [objective.cost({objective.metric: Measurement(float(v))}) for v in values]
        many = objective.costs(values)
        assert np.allclose(many, one, rtol=1e-12)
        assert np.array_equal(
            np.unique(many, return_inverse=True)[1], np.unique(one, return_inverse=True)[1]
        )
