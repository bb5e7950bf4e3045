"""Callbacks hear what happens, in order, and whatever goes wrong in them costs nothing else."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hearing import Everything, Failing
from torch import nn

import petra
from petra.api import create_or_continue
from petra.callbacks.base import Callback, StudyRun
from petra.config import parse_config
from petra.core.trial import Trial
from petra.listener import Clock
from petra.store.store import Store
from petra.testing.callback_suite import CallbackSuite, Interrupting, ready_study
from petra.testing.recorded import RecordedExecutor


class TestEverything(CallbackSuite):
    def make(self) -> Callback:
        return Everything()


def test_a_study_is_told_from_beginning_to_end(tmp_path: Path) -> None:
    told = Everything()
    done = ready_study(tmp_path).run(executor=RecordedExecutor, callbacks=[told])
    assert told.heard[0] == ("start", 0)
    assert told.of("ends")[0] == 0, "the untouched model"
    assert sorted(told.of("ends")) == list(range(9))
    (end,) = told.of("end")
    assert told.heard[-1] == ("end", end)
    assert end == (len(done.front), "the budget of 8 trials is spent")
    assert told.of("front")[-1] == [t.number for t in done.front.members]
    changes = told.of("front")
    assert all(a != b for a, b in pairwise(changes[:-1])), "the last has what was confirmed"
    assert any("stopped" in text for text in told.of("says"))
    assert told.run.config["budget"]["trials"] == 8
    assert [metric.title for metric in told.run.task] == ["accuracy"]


def test_a_resumed_study_begins_with_what_was_kept(tmp_path: Path) -> None:
    first, second = Everything(), Everything()
    with pytest.raises(KeyboardInterrupt):
        ready_study(tmp_path).run(executor=RecordedExecutor, callbacks=[first, Interrupting(3)])
    assert first.of("end") == [(first.of("end")[0][0], "")], "no reason: it was interrupted"
    ready_study(tmp_path).run(executor=RecordedExecutor, callbacks=[second])
    assert second.run.kept == {"sessions": 1}
    ended = [t.number for t in second.run.finished]
    assert 0 in ended
    assert sorted([*ended, *second.of("ends")]) == list(range(9)), "each is told once"
    with Store.open(tmp_path, write=False) as store:
        assert store.note("callback Everything") == {"sessions": 2}


def test_two_of_a_kind_keep_apart(tmp_path: Path) -> None:
    ready_study(tmp_path).run(executor=RecordedExecutor, callbacks=[Everything(), Everything()])
    with Store.open(tmp_path, write=False) as store:
        assert store.note("callback Everything") == {"sessions": 1}
        assert store.note("callback Everything 2") == {"sessions": 1}


def test_a_study_outlives_its_callbacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failing, sound = Failing("on_trial_end", SystemExit(3)), Everything()
    done = ready_study(tmp_path).run(executor=RecordedExecutor, callbacks=[failing, sound])
    assert len(done.trials) == 9
    assert done.front.members
    assert sorted(sound.of("ends")) == list(range(9))
    assert capsys.readouterr().err.count("failed in on_trial_end: SystemExit: 3") == 1


def test_ctrl_c_passes(tmp_path: Path) -> None:
    told, interrupting = Everything(), Failing("on_trial_end", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        ready_study(tmp_path).run(executor=RecordedExecutor, callbacks=[interrupting, told])
    assert len(told.of("end")) == 1


def test_what_is_no_json_is_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Keeping(Callback):
        def on_study_start(self, run: StudyRun) -> None:
            run.keep(object())

    done = ready_study(tmp_path).run(executor=RecordedExecutor, callbacks=[Keeping()])
    assert len(done.trials) == 9
    assert "what the callback Keeping keeps cannot be stored" in capsys.readouterr().err


class OnlyTrials:
    """Derived from nothing, with one method."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def on_trial_end(self, trial: Trial, clock: Clock) -> None:
        self.numbers.append(trial.number)


class OnlyFinished:
    """A listener without the other three methods."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def finished(self, trial: Trial, clock: Clock) -> None:
        self.numbers.append(trial.number)


def test_what_a_listener_or_a_callback_has_not_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listener: Any = OnlyFinished()
    also, callback = OnlyFinished(), OnlyTrials()
    ready_study(tmp_path).run(
        listener, executor=RecordedExecutor, callbacks=[also, callback], progress=False
    )
    assert sorted(listener.numbers) == sorted(also.numbers) == list(range(1, 9))
    assert sorted(callback.numbers) == list(range(9))
    assert capsys.readouterr().err == ""


def test_compress_takes_names_and_objects(tmp_path: Path) -> None:
    told = OnlyTrials()
    pair = torch.randn(24, 6), torch.arange(24) % 3
    petra.compress(
        nn.Linear(6, 3),
        petra.classification(pair, pair, pair),
        space={"stages": ["tune"], "recipes": False},
        budget={"trials": 3},
        executor=RecordedExecutor,
        callbacks=["csv", {"name": "csv", "args": {"file": "b.csv"}}, told],
        workdir=tmp_path / "study",
    )
    assert sorted(told.numbers) == [0, 1, 2, 3]
    assert (tmp_path / "study/trials.csv").read_text() == (tmp_path / "study/b.csv").read_text()


def test_other_callbacks_do_not_make_another_study(tmp_path: Path) -> None:
    pair = torch.zeros(24, 6), torch.arange(24) % 3
    model, task = nn.Linear(6, 3), petra.classification(pair, pair, pair)
    space = {"stages": ["tune"], "recipes": False}
    for callbacks in ([], [{"name": "csv", "args": {"file": "b.csv"}}], []):
        data = {"space": space, "callbacks": callbacks, "workdir": str(tmp_path)}
        create_or_continue(parse_config(data), model, task)
