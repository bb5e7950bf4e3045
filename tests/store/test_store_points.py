"""What a front is computed from is kept with every write, read at once, and checked."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stored import CONFIG, HOST, edited, make_trial

from petra.core.errors import StoreError
from petra.core.measurement import Measurement
from petra.core.trial import SCREEN, Failure, Fidelity, StageTrace, Trial, TrialStatus
from petra.store import layout, sealing
from petra.store.points import AUDITED, BLOCK, HEAD, Points
from petra.store.store import Store


def written(directory: Path, number: int) -> list[Trial]:
    """Trials of every kind, in several sessions and blocks, some measured on the test split."""
    trials = []
    for n in range(number):
        trial = make_trial(n)
        if n % 5 == 3:
            failure = Failure("tune", "E", "m")
            trial = replace(trial, status=TrialStatus.FAILED, metrics={}, failure=failure)
        if n % 7 == 2:
            more = {**trial.metrics, "macs": Measurement(n / 7)}
            trial = replace(trial, metrics=more, fidelity=Fidelity(data=0.5))
        if n % 9 == 4:
            failure = Failure(SCREEN, "dominated", "m")
            trial = replace(trial, status=TrialStatus.SCREENED, metrics={}, failure=failure)
        if n % 11 == 6:
            trial = replace(trial, trace=(*trial.trace, StageTrace(SCREEN)))
        trials.append(trial)
    Store.create(directory, CONFIG, HOST).close()
    for part in (trials[: number // 2], trials[number // 2 :]):
        with Store.open(directory, write=True) as store:
            for trial in part:
                store.add(trial)
    with Store.open(directory, write=True) as store:
        for n in (0, number - 2):
            trials[n] = replace(trials[n], test={"quality": Measurement(0.5 + n)})
            store.set_test(n, trials[n].test)
    return trials


def points_of(directory: Path) -> Points:
    with Store.open(directory, write=False, whole=False) as store:
        assert store.points is not None
        return store.points


def left_for(trial: Trial) -> str:
    if trial.status is TrialStatus.SCREENED and trial.failure:
        return trial.failure.kind
    audited = trial.measured and any(part.stage == SCREEN for part in trial.trace)
    return AUDITED if audited else ""


def check(points: Points, trials: list[Trial]) -> None:
    assert sorted(points.numbers.tolist()) == [t.number for t in trials]
    for at, number in enumerate(points.numbers):
        trial = trials[number]
        assert points.statuses[at] == trial.status.value
        assert points.full[at] == trial.fidelity.full
        assert points.seconds[at] == pytest.approx(trial.seconds, abs=1e-3)
        assert points.left[at] == left_for(trial)
        for columns, metrics in ((points.val, trial.metrics), (points.test, trial.test)):
            held = {name: c[at] for name, c in columns.items() if not math.isnan(c[at])}
            assert held == {name: m.mean for name, m in metrics.items()}


def test_points_are_those_of_the_trials(tmp_path: Path) -> None:
    trials = written(tmp_path / "study", 2 * BLOCK + 10)
    check(points_of(tmp_path / "study"), trials)
    with Store.open(tmp_path / "study", write=False) as store:
        assert store.points is None
        assert store.trials([1, 70]) == [trials[1], trials[70]]


def test_a_study_of_an_earlier_petra_gets_them_when_it_is_opened_for_writing(
    tmp_path: Path,
) -> None:
    """Also when one that kept none has added trials since."""
    from petra.store.database import connect_file
    from petra.store.sealing import seal_study

    directory = tmp_path / "study"
    trials = written(directory, 12)
    path = directory / layout.DATABASE_FILE
    for forget in (f"DELETE FROM notes WHERE name LIKE '{HEAD}%'", "DELETE FROM notes WHERE 0"):
        raw = sqlite3.connect(path)
        with raw:
            raw.execute(forget)
            raw.execute("DELETE FROM measurements WHERE number = 11")
            raw.execute("DELETE FROM trials WHERE number = 11")
        raw.close()
        engine = connect_file(path, write=True)
        with engine.begin() as connection:
            seal_study(connection)
        engine.dispose()
        with Store.open(directory, write=False, whole=False) as store:
            assert store.points is None, "they are of what was there before"
            assert store.trials() == trials[:11]
        Store.open(directory, write=True).close()
        check(points_of(directory), trials[:11])
        with Store.open(directory, write=True) as store:
            store.add(trials[11])
        check(points_of(directory), trials)


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE notes SET value = replace(value, '0.9', '0.8') WHERE name LIKE '{HEAD} %'",
        f"DELETE FROM notes WHERE name LIKE '{HEAD} %'",
        f"UPDATE notes SET value = '\"00\"' WHERE name = '{HEAD}'",
        f"UPDATE notes SET value = '{'[' * 100_000}' WHERE name = '{HEAD}'",
        "UPDATE study SET config = '{}'",
        "UPDATE study SET elapsed_s = 5",
        "DELETE FROM notes WHERE name = 'stop'",
        "UPDATE trials SET checksum = 'x' WHERE number = 1",
        "UPDATE measurements SET mean = 0.1 WHERE number = 1",
        "DELETE FROM trials WHERE number = 1",
        "UPDATE trials SET seconds = 2 WHERE number = 1",
    ],
)
def test_what_is_shown_is_what_was_written_or_it_is_refused(tmp_path: Path, statement: str) -> None:
    """Points, the study's row, notes, and the trial that is read, whatever was edited."""
    directory = tmp_path / "study"
    trials = written(directory, 9)
    with Store.open(directory, write=True) as store:
        store.set_note("stop", 1)
    with Store.open(directory, write=False) as store:
        elapsed = store.elapsed()
    edited(store, statement)
    with pytest.raises(StoreError) as caught:
        look(directory, trials, elapsed)
    assert caught.value.hint


def look(directory: Path, trials: list[Trial], elapsed: float) -> None:
    with Store.open(directory, write=False, whole=False) as store:
        if store.points is not None:
            check(store.points, trials)
        assert (store.config, store.elapsed(), store.note("stop")) == (CONFIG, elapsed, 1)
        assert store.trials([1]) == [trials[1]]


def test_notes_of_another_form_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(sealing, "FORM", "1")
        trials = written(tmp_path / "study", BLOCK + 9)
    with Store.open(tmp_path / "study", write=False, whole=False) as store:
        assert store.points is None
        assert len(store.trials()) == len(trials)
    Store.open(tmp_path / "study", write=True).close()
    check(points_of(tmp_path / "study"), trials)


def test_a_forged_block_is_refused(tmp_path: Path) -> None:
    from petra.store.points import joined

    columns = {"statuses": ["complete"], "full": [True], "seconds": [1.0], "left": [""]}
    columns |= {"val": {"q": [1.0]}, "test": {}}
    good = {"numbers": [1], **columns}
    assert len(joined([good])) == 1
    for change in (
        {"numbers": [-1]},
        {"numbers": [1, 2]},
        {"statuses": ["fine"]},
        {"seconds": ["1"]},
        {"left": [1]},
        {"left": ["x" * 1000]},
        {"full": [1]},
        {"val": {"q": []}},
        {"val": {"q": [1e300]}},
        {"val": {"q": [math.nan]}},
        {"val": {"q": ["1"]}},
        {"val": {"q": [[1.0]]}},
        {"test": []},
    ):
        with pytest.raises((ValueError, TypeError)):
            joined([{**good, **change}])
    with pytest.raises(ValueError, match="two blocks"):
        joined([good, good])
    assert np.isnan(joined([good, {**good, "numbers": [2], "val": {}}]).val["q"][1])
