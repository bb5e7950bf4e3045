"""A study looked at while it grows, ends, is killed, deleted or replaced."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from grown import add, propose, smaller

from petra.core.notes import StepBegan
from petra.core.trial import TrialStatus
from petra.listener import Phase, Silent
from petra.report.study_front import StudyFront
from petra.store.activity import told
from petra.store.layout import DATABASE_FILE
from petra.store.store import Store
from petra.testing.studies import toy_study
from petra.watch import look as looking
from petra.watch.look import Look, Watched
from petra.watch.state import State, advice, headline, how_far, progress, state_of
from petra.watch.words import endings, latest, misses, outcome, running


def seen(look: Look) -> looking.Seen:
    assert look.seen is not None
    return look.seen


def test_what_is_seen_is_what_the_study_holds(tmp_path: Path) -> None:
    front = StudyFront.load(toy_study(tmp_path, trials=12, constraints=["quality >= 0.5"]))
    found = seen(Watched(tmp_path).look())
    assert list(found.trials) == list(front.trials)
    assert [t.number for t in found.front.members] == [t.number for t in front.members]
    assert list(found.front.trials) == list(front.trials)
    assert list(found.waiting) == []


def test_a_growing_study_is_followed_trial_by_trial(tmp_path: Path) -> None:
    watched = Watched(toy_study(tmp_path, trials=5))
    before = watched.look()
    assert state_of(before) is State.FINISHED
    assert watched.look().seen is before.seen, "nothing was written, nothing is read"
    with Store.open(tmp_path, write=True) as store:
        store.set_note("stop_reason", "")
        for share in (0.5, 0.25):
            best = add(store, metrics=smaller(store, share))
            look = watched.look()
            assert state_of(look) is State.RUNNING
            assert seen(look).version > seen(before).version
            assert latest(seen(look).trials, 1) == [best]
            assert best.number in {t.number for t in seen(look).front.members}
            before = look
        waiting = propose(store)
        assert [p.number for p in seen(watched.look()).waiting] == [waiting.number]
    look = watched.look()
    assert state_of(look) is State.STOPPED
    assert headline(look) == f"not alive: continue with petra resume {tmp_path}"
    assert advice(look).startswith("1 candidate under way")


def test_known_trials_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(toy_study(tmp_path, trials=15, objectives=["quality", "size"]))
    watched.look()
    asked: list[int] = []
    read = Store.trials

    def counted(self: Store, numbers: object = None) -> object:
        asked.extend(numbers or ())  # type: ignore[call-overload]
        return read(self, numbers)  # type: ignore[arg-type]

    with Store.open(tmp_path, write=True) as store:
        added = add(store, status=TrialStatus.FAILED, metrics={})
        monkeypatch.setattr(Store, "trials", counted)
        found = seen(watched.look())
    again = {t.number for t in found.record.leading}
    assert set(asked) == again | {added.number}
    assert len(again) < 12
    assert len(found.trials) == 17


def test_what_is_confirmed_later_is_seen(tmp_path: Path) -> None:
    watched = Watched(toy_study(tmp_path, trials=10, confirm=False))
    member = next(t for t in seen(watched.look()).front.members if t.number)
    assert not member.test
    with Store.open(tmp_path, write=True) as store:
        store.set_test(member.number, member.metrics)
        found = {t.number: t for t in seen(watched.look()).trials}
    assert found[member.number].test == member.metrics


# ---- alive or not --------------------------------------------------------------------------------


def test_steps_are_shown_while_they_run_and_after_a_kill(tmp_path: Path) -> None:
    watched = Watched(toy_study(tmp_path, trials=5))
    store = Store.open(tmp_path, write=True)
    with told(tmp_path, Silent(), lambda: 100.0) as activity:
        store.set_note("stop_reason", "")
        proposal = propose(store)
        assert [r.doing for r in running(watched.look())] == []
        activity.stage(proposal, StepBegan(0, "tune"))
        time.sleep(0.05)
        look = watched.look()
        (hand,) = running(look)
        assert str(hand).startswith(f"trial {proposal.number}: tune (stage 1 of 1), for 0.")
        assert hand.words == "tune (epochs 6)"
        assert look.elapsed_s >= 100.04
        kept = (tmp_path / "activity.json").read_bytes()
        activity.message(Phase("confirming 3 models on the test split"))
        assert headline(watched.look()) == "alive: confirming 3 models on the test split"
    store.close()
    (tmp_path / "activity.json").write_bytes(kept)  # as a killed session leaves it
    look = watched.look()
    assert state_of(look) is State.STOPPED
    assert [r.number for r in running(look)] == [proposal.number]


KILLED = """
import sys, time
from pathlib import Path
from petra.store.store import Store
store = Store.open(Path(sys.argv[1]), write=True)
store.set_note("stop_reason", "")
print("ready", flush=True)
time.sleep(60)
"""


def test_a_killed_process_is_not_alive_at_once(tmp_path: Path) -> None:
    watched = Watched(toy_study(tmp_path, trials=5))
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        look = watched.look()
        assert state_of(look) is State.RUNNING
        assert look.holder is not None
        assert look.holder.pid == process.pid
        os.kill(process.pid, signal.SIGKILL)
    assert headline(watched.look()).startswith("not alive: continue with petra resume ")


# ---- what becomes of the directory ---------------------------------------------------------------


def test_a_deleted_study_leaves_what_was_seen_and_a_new_one_takes_its_place(tmp_path: Path) -> None:
    place = tmp_path / "study"
    watched = Watched(toy_study(place, trials=8))
    old = seen(watched.look())
    shutil.rmtree(place)
    look = watched.look()
    assert state_of(look) is State.UNREADABLE
    assert "there is no study here" in headline(look)
    assert seen(look) is old
    assert "read last" in advice(look)
    toy_study(place, trials=3, seed=1)
    look = watched.look()
    assert state_of(look) is State.FINISHED
    assert list(seen(look).trials) == list(StudyFront.load(place).trials)
    assert seen(look).version > old.version


def test_a_replaced_study_shares_nothing_with_the_one_before(tmp_path: Path) -> None:
    place, other = tmp_path / "study", tmp_path / "other"
    watched = Watched(toy_study(place, trials=12))
    watched.look()
    toy_study(other, trials=6, seed=5)
    for file in place.glob("study.db*"):
        file.unlink()
    (other / DATABASE_FILE).rename(place / DATABASE_FILE)
    assert list(seen(watched.look()).trials) == list(StudyFront.load(place).trials)


def _newer(place: Path) -> None:
    with closing(sqlite3.connect(place / DATABASE_FILE)) as raw, raw:
        raw.execute("UPDATE study SET schema_version = 99, petra_version = '9.9'")


def _damaged(place: Path) -> None:
    with closing(sqlite3.connect(place / DATABASE_FILE)) as raw, raw:
        raw.execute("UPDATE notes SET value = '[' WHERE name = 'task'")


def _linked(place: Path) -> None:
    (place / DATABASE_FILE).rename(place / "elsewhere")
    (place / DATABASE_FILE).symlink_to(place / "elsewhere")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_newer, "schema version 99"),
        (_damaged, "damaged"),
        (_linked, "a link"),
        (lambda place: (place / DATABASE_FILE).write_bytes(b"no database"), "not a study's"),
        (lambda place: (place / DATABASE_FILE).chmod(0), "" if os.geteuid() == 0 else "read"),
    ],
)
def test_what_cannot_be_read_is_said_and_survived(
    tmp_path: Path, harm: Callable[[Path], object], said: str
) -> None:
    watched = Watched(toy_study(tmp_path, trials=4))
    kept = (tmp_path / DATABASE_FILE).read_bytes()
    old = seen(watched.look())
    harm(tmp_path)
    look = watched.look()
    assert said in headline(look)
    assert [t.number for t in seen(look).trials] == [t.number for t in old.trials]
    for file in tmp_path.glob("study.db*"):
        file.unlink()
    (tmp_path / DATABASE_FILE).write_bytes(kept)
    assert state_of(watched.look()) is State.FINISHED


# ---- cost ----------------------------------------------------------------------------------------


def test_however_many_ask_reading_keeps_to_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "SHARE", 0.01)
    watched = Watched(toy_study(tmp_path, trials=5))
    reads = []
    monkeypatch.setattr(watched, "_read", lambda token: (reads.append(token), time.sleep(0.02)))
    with Store.open(tmp_path, write=True) as store:
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            store.set_note("anything", time.monotonic())
            watched.look()
    assert 1 <= len(reads) <= 2


# ---- words ---------------------------------------------------------------------------------------


def test_time_left_includes_the_final_measurements(tmp_path: Path) -> None:
    watched = Watched(toy_study(tmp_path, trials=10, confirm=False))
    with Store.open(tmp_path, write=True) as store:
        store.set_note("stop_reason", "")
        look = watched.look()
        record = seen(look).record
        budget = record.config.budget.model_copy(update={"trials": 30})
        longer = replace(record, config=record.config.model_copy(update={"budget": budget}))
        look = replace(look, seen=replace(seen(look), record=longer))
        members = {0, *(t.number for t in seen(look).front.members)}
        # 20 trials at 1.5 s each, and every member once more at the untouched model's 1.5 s
        assert progress(look).left_s == pytest.approx(20 * 1.5 + len(members) * 1.5)
        assert "left with the final measurements" in how_far(look)
        budget = budget.model_copy(update={"time": look.elapsed_s + 7})
        longer = replace(record, config=record.config.model_copy(update={"budget": budget}))
        look = replace(look, seen=replace(seen(look), record=longer))
        assert progress(look).left_s == pytest.approx(7)


def test_nothing_says_100_percent_while_it_works(tmp_path: Path) -> None:
    watched = Watched(toy_study(tmp_path, trials=10))
    with Store.open(tmp_path, write=True):
        look = watched.look()
        assert progress(look).over
        assert progress(look).fraction == 0.99
        assert "the last measurements are under way" in how_far(look)


def test_reasons_are_counted_and_misses_said_by_how_much(tmp_path: Path) -> None:
    watched = Watched(
        toy_study(tmp_path, trials=20, constraints=["size <= 300 kB", "quality >= 0.6"])
    )
    found = seen(watched.look())
    reasons = {(e.how, e.why): e.count for e in endings(found.trials, found.front)}
    infeasible = [t for t in found.trials if t.status is TrialStatus.INFEASIBLE]
    failed = [t for t in found.trials if t.status is TrialStatus.FAILED]
    assert infeasible
    assert sum(n for (how, _), n in reasons.items() if how == "failed") == len(failed)
    assert sum(n for (how, _), n in reasons.items() if how == "infeasible") >= len(infeasible)
    for trial in infeasible:
        said = misses(trial, found.front)
        assert said
        assert all(text in outcome(trial, found.front) for text in said)
        big = trial.metrics["size_bytes"].mean
        if big > 3e5:
            assert f"{big / 3e5 - 1:.0%} beyond size_bytes <= 300000" in said[0]
