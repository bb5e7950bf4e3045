"""Who writes a study, and what it is doing: said to other processes, and no part of the study."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from pathlib import Path

import pytest
from stored import CONFIG, HOST

from petra.core.errors import StoreError
from petra.core.notes import StepBegan, StepProgress
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import Proposal, Trial, TrialStatus
from petra.listener import Clock, Phase, Silent
from petra.store.activity import ActivityFile, read_activity, told
from petra.store.layout import ACTIVITY_FILE, LOCK_FILE
from petra.store.lock import current_holder
from petra.store.store import Store

TWO = Proposal(3, Pipeline((StageSpec("tune"), StageSpec("prune"))))


class Heard(Silent):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def stage(self, proposal: Proposal, note: object) -> None:
        self.events.append(note)

    def message(self, text: str) -> None:
        self.events.append(text)


def ended(number: int) -> Trial:
    return Trial(number, TWO.pipeline, TrialStatus.COMPLETE)


# ---- who writes ----------------------------------------------------------------------------------


def test_the_holder_is_who_has_it_open_for_writing(tmp_path: Path) -> None:
    assert current_holder(tmp_path) is None
    before = time.time()
    with Store.create(tmp_path, CONFIG, HOST):
        holder = current_holder(tmp_path)
        assert holder is not None
        assert holder.pid == os.getpid()
        assert before - 1 <= holder.since <= time.time()
    assert current_holder(tmp_path) is None, "although the file still names it"
    with Store.open(tmp_path, write=False):
        assert current_holder(tmp_path) is None


def test_looking_never_keeps_a_writer_out(tmp_path: Path) -> None:
    Store.create(tmp_path, CONFIG, HOST).close()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            current_holder(tmp_path)
            time.sleep(0.0005)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(10):
            Store.open(tmp_path, write=True).close()
    finally:
        over.set()
        for looker in lookers:
            looker.join()


def test_a_second_writer_is_still_refused(tmp_path: Path) -> None:
    with (
        Store.create(tmp_path, CONFIG, HOST),
        pytest.raises(StoreError, match=f"being written by process {os.getpid()}"),
    ):
        Store.open(tmp_path, write=True)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1, "host": 2}', "[" * 9999]
)
def test_a_lock_that_names_nobody_is_held_by_somebody(tmp_path: Path, text: str) -> None:
    path = tmp_path / LOCK_FILE
    path.write_text(text)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        holder = current_holder(tmp_path)
    assert holder is not None
    assert holder.pid == 0
    assert current_holder(tmp_path) is None


def test_what_is_no_lock_file_is_not_opened_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / LOCK_FILE
    os.mkfifo(path)
    assert current_holder(tmp_path) is None
    path.unlink()
    path.mkdir()
    assert current_holder(tmp_path) is None
    path.rmdir()
    path.symlink_to("/etc/passwd")
    assert current_holder(tmp_path) is None


# ---- what it is doing ----------------------------------------------------------------------------


def test_every_event_is_written_and_passed_on(tmp_path: Path) -> None:
    heard = Heard()
    with told(tmp_path, heard, lambda: 12.5) as activity:
        activity.message("measuring")
        activity.stage(TWO, StepBegan(1, "prune"))
        activity.stage(TWO, StepProgress(2, 7, "batches"))
        activity.stage(Proposal(4, Pipeline()), StepBegan(0, "export"))
        found = read_activity(tmp_path)
        assert found is not None
        assert (found.said, found.elapsed_s) == ("measuring", 12.5)
        assert str(found.running[3]).startswith("prune (stage 2 of 2)")
        assert str(found.running[4]) == "export"
        activity.finished(ended(3), Clock(1, 1.0))
        found = read_activity(tmp_path)
        assert found is not None
        assert set(found.running) == {4}
        assert found.phase == "", "it was no phase that began"
    assert len(heard.events) == 4
    assert list(tmp_path.iterdir()) == [], "the directory is as it was"


def test_phases_are_those_of_a_session(tmp_path: Path) -> None:
    with told(tmp_path, Silent(), lambda: 0.0) as activity:
        phases = []
        for event in (
            lambda: activity.message(Phase("measuring the untouched model")),
            lambda: activity.started(ended(0), Clock(0, 1.0)),
            lambda: activity.message("about 12 trials fit into 60 s"),
            lambda: activity.stage(TWO, StepBegan(0, "tune")),
            lambda: activity.message(Phase("confirming 3 models on the test split")),
        ):
            event()
            found = read_activity(tmp_path)
            assert found is not None
            phases.append(found.phase)
    first, *search, last = phases
    assert found.running == {}, "what had no time left never says that it ended"
    assert (first, search) == ("measuring the untouched model", ["searching"] * 3)
    assert last == "confirming 3 models on the test split"


def test_progress_is_written_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("petra.store.activity.PROGRESS_EVERY_S", 0.05)
    with told(tmp_path, Silent(), lambda: 0.0) as activity:
        activity.stage(TWO, StepBegan(0, "tune"))
        written = set()
        for i in range(1, 2000):
            activity.stage(TWO, StepProgress(i, 2000, "steps"))
            written.add((tmp_path / ACTIVITY_FILE).read_text())
            if len(written) == 3:
                break
        assert 1 <= len(written) <= 3 < i, "far fewer than there were notes"


def test_a_step_keeps_the_time_when_it_began(tmp_path: Path) -> None:
    with told(tmp_path, Silent(), lambda: 0.0) as activity:
        activity.stage(TWO, StepBegan(0, "tune"))
        began = read_activity(tmp_path)
        time.sleep(0.02)
        activity.stage(TWO, StepProgress(1, 2, ""))
        activity.message("written again")
        later = read_activity(tmp_path)
    assert began is not None
    assert later is not None
    assert later.running[3].since == began.running[3].since
    assert later.at > began.at


def test_an_earlier_session_says_nothing_of_this_one(tmp_path: Path) -> None:
    activity = ActivityFile(tmp_path, Silent(), lambda: 0.0)
    activity.message("killed now")
    assert read_activity(tmp_path, since=time.time() + 1) is None
    assert read_activity(tmp_path) is not None
    activity.close()


def test_what_cannot_be_written_is_left_unsaid(tmp_path: Path) -> None:
    heard = Heard()
    (tmp_path / ACTIVITY_FILE).mkdir()
    with told(tmp_path, heard, lambda: 0.0) as activity:
        activity.message("a directory is in the way")
    with told(tmp_path / "missing", heard, lambda: 0.0) as activity:
        activity.message("there is no place")
    with told(tmp_path, heard, lambda: 0.0) as activity:
        activity.message("half a \ud800 surrogate")
    assert len(heard.events) == 3


def test_a_newcomer_in_the_same_place_is_not_touched(tmp_path: Path) -> None:
    place = tmp_path / "study"
    place.mkdir()
    with told(place, Silent(), lambda: 0.0) as activity:
        place.rename(tmp_path / "moved")
        place.mkdir()
        (place / ACTIVITY_FILE).write_text("another's")
        activity.message("still here")
        assert (tmp_path / "moved" / ACTIVITY_FILE).exists()
    assert (place / ACTIVITY_FILE).read_text() == "another's"


def test_a_link_is_neither_followed_nor_written_through(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"said": "x"}')
    place = tmp_path / "study"
    place.mkdir()
    (place / ACTIVITY_FILE).symlink_to(secret)
    assert read_activity(place) is None
    with told(place, Silent(), lambda: 0.0) as activity:
        activity.message("mine")
    assert secret.read_text() == '{"said": "x"}'


@pytest.mark.parametrize(
    "change",
    [
        {"said": 1},
        {"said": "x" * 10**6},
        {"elapsed_s": -1},
        {"elapsed_s": float("nan")},
        {"at": "now"},
        {"running": []},
        {"running": {"x": {}}},
        {"running": {"1": {"name": "tune"}}},
        {"running": {str(n): {} for n in range(2000)}},
        {
            "running": {
                "1": {
                    "name": "a",
                    "index": 10**30,
                    "stages": 1,
                    "since": 0,
                    "done": 0,
                    "total": 0,
                    "text": "",
                }
            }
        },
    ],
)
def test_a_file_that_is_not_as_it_is_written_says_nothing(
    tmp_path: Path, change: dict[str, object]
) -> None:
    good = {"phase": "", "said": "", "running": {}, "elapsed_s": 1.0, "at": 2.0}
    (tmp_path / ACTIVITY_FILE).write_text(json.dumps(good))
    assert read_activity(tmp_path) is not None
    (tmp_path / ACTIVITY_FILE).write_text(json.dumps(good | change))
    assert read_activity(tmp_path) is None


def test_texts_are_made_fit_to_be_shown(tmp_path: Path) -> None:
    with told(tmp_path, Silent(), lambda: 0.0) as activity:
        activity.message("a\x1b[31m\nb\u202e" + "x" * 600)
        found = read_activity(tmp_path)
    assert found is not None
    assert found.said.startswith("a\\x1b[31m b\\u202e")
    assert len(found.said) == 500
