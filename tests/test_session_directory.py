"""A study's directory that is changed, taken over or full while the study runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from petra.core.errors import StoreError
from petra.core.trial import Trial
from petra.store.layout import LOCK_FILE
from petra.store.store import Store
from petra.testing.recorded import RecordedExecutor
from test_study import study


class Meddling(RecordedExecutor):
    """Does something to the study's directory after the fourth trial."""

    def __init__(self, meddle: Callable[[], None]) -> None:
        super().__init__()
        self.meddle = meddle

    def results(self) -> Iterator[Trial]:
        for trial in super().results():
            if len(self.evaluated) >= 5 and self.meddle is not None:
                meddle, self.meddle = self.meddle, None  # type: ignore[assignment]
                meddle()
            yield trial


def test_a_lock_that_is_deleted_is_noticed_at_the_next_write(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"study.lock is gone: it was deleted"):
        study(tmp_path).run(executor=lambda _: Meddling((tmp_path / LOCK_FILE).unlink))
    finished = study(tmp_path).run(executor=RecordedExecutor)
    assert len(finished.trials) == 21


def test_a_database_that_is_deleted_or_replaced_is_noticed(tmp_path: Path) -> None:
    for name, meddle in {
        "gone": lambda place: [file.unlink() for file in place.glob("study.db*")],
        "moved": lambda place: place.rename(place.with_name("elsewhere")),
        "replaced": lambda place: (
            shutil.copy(place / "study.db", place / "x"),
            (place / "x").rename(place / "study.db"),
        ),
    }.items():
        with pytest.raises(StoreError, match="deleted, moved or replaced"):
            study(tmp_path / name).run(
                executor=lambda _, m=meddle, n=name: Meddling(lambda: m(tmp_path / n))
            )  # type: ignore[misc]
    with Store.open(tmp_path / "elsewhere", write=True) as moved:
        assert len(moved.trials()) >= 1, "what was finished went along"


def test_nothing_of_a_newcomer_is_touched(tmp_path: Path) -> None:
    """The directory is emptied under a run, and another study begins in it."""
    place = tmp_path / "study"
    files: dict[str, bytes] = {}

    def newcomer() -> None:
        shutil.rmtree(place)
        study(place, seed=3, budget={"trials": 3}).run(executor=RecordedExecutor)
        (place / "artifacts" / "00005").mkdir(parents=True)
        (place / "artifacts" / "00005" / "model.onnx").write_text("newcomer's")
        files.update({str(p): p.read_bytes() for p in place.rglob("*") if p.is_file()})

    with pytest.raises(StoreError, match="deleted, moved or replaced"):
        study(place).run(executor=lambda _: Meddling(newcomer))
    assert {str(p): p.read_bytes() for p in place.rglob("*") if p.is_file()} == files
    with Store.open(place, write=False) as store:
        assert len(store.trials()) == 4


def test_two_writers_are_never_at_once_even_without_the_lock_file(tmp_path: Path) -> None:
    study(tmp_path, budget={"trials": 4}).run(executor=RecordedExecutor)
    with (  # noqa: PT012
        pytest.raises(StoreError, match="is gone"),
        Store.open(tmp_path, write=True) as first,
    ):
        (tmp_path / LOCK_FILE).unlink()
        with pytest.raises(StoreError, match="being written by"):
            Store.open(tmp_path, write=True)
        (tmp_path / LOCK_FILE).unlink()
        first.set_note("x", 1)
    Store.open(tmp_path, write=True).close()


FULL = """
import pathlib, resource, sys
sys.path.insert(0, {tests!r})
workdir = pathlib.Path({workdir!r})
from test_study import study
from petra.core.errors import StoreError
from petra.testing.recorded import RecordedExecutor
study(workdir, budget={{"trials": 4}}).run(executor=RecordedExecutor)
full = max(file.stat().st_size for file in workdir.iterdir()) + 150_000
resource.setrlimit(resource.RLIMIT_FSIZE, (full, full))
try:
    study(workdir, budget={{"trials": 200}}).run(executor=RecordedExecutor)
except StoreError as error:
    print(error)
    sys.exit(7)
"""


def test_a_full_disk_is_one_message_and_loses_nothing(tmp_path: Path) -> None:
    code = FULL.format(tests=str(Path(__file__).parent), workdir=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        timeout=200,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert "free space" in done.stdout
    assert "Traceback" not in done.stderr
    with Store.open(tmp_path, write=False) as store:
        before = {t.number: replace(t, test={}) for t in store.trials()}
    assert 5 < len(before) < 201
    trials = study(tmp_path, budget={"trials": 60}).run(executor=RecordedExecutor).trials
    assert before.items() <= {t.number: replace(t, test={}) for t in trials}.items()
