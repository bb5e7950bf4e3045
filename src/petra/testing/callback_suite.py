"""What every callback promises. Subclass and say how it is made:

class TestMine(CallbackSuite):
    def make(self) -> Callback:
        return Mine()
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from pathlib import Path

import pytest
import torch
from torch import nn

from petra.api import create_or_continue
from petra.callbacks.base import EVENTS, Callback
from petra.callbacks.check import check_callback
from petra.config import parse_config
from petra.core.trial import Trial
from petra.listener import Clock
from petra.study import Study
from petra.tasks.classification import classification
from petra.testing.recorded import RecordedExecutor

TRIALS = 8


class Interrupting(Callback):
    """Ctrl-C after so many trials."""

    def __init__(self, after: int) -> None:
        self._after = after

    def on_trial_end(self, trial: Trial, clock: Clock) -> None:
        if clock.trials == self._after:
            raise KeyboardInterrupt


def ready_study(workdir: Path, *, trials: int = TRIALS) -> Study:
    """A study of recorded results: all of the loop, nothing trained, over in half a second."""
    data = {
        "search": "uniform",
        "space": {"stages": ["tune", "quantize.dynamic"], "recipes": False},
        "prior": {"shipped": False},
        "budget": {"trials": trials},
        "workdir": str(workdir),
    }
    g = torch.Generator().manual_seed(0)
    pair = torch.randn(24, 6, generator=g), torch.arange(24) % 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Linear(6, 3)
    return create_or_continue(parse_config(data), model, classification(pair, pair, pair))


class CallbackSuite(ABC):
    """Conformance tests of one callback; what it writes elsewhere its own tests look at."""

    @abstractmethod
    def make(self) -> Callback:
        """A fresh one, as a session has it."""

    def run(self, workdir: Path, *others: Callback, trials: int = TRIALS) -> list[Trial]:
        study = ready_study(workdir, trials=trials)
        callbacks = (self.make(), *others)
        return study.run(executor=RecordedExecutor, callbacks=callbacks).trials

    def test_it_is_one_that_is_taken(self) -> None:
        check_callback(self.make(), where="callbacks[0]")
        assert any(hasattr(self.make(), event) for event in EVENTS)

    def test_it_hears_a_study_to_the_end(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert len(self.run(tmp_path / "study")) == TRIALS + 1
        assert "hears no more" not in capsys.readouterr().err

    def test_it_changes_no_trial(self, tmp_path: Path) -> None:
        heard = self.run(tmp_path / "heard")
        alone = ready_study(tmp_path / "alone").run(executor=RecordedExecutor).trials
        assert [(t.number, t.pipeline, t.metrics) for t in heard] == [
            (t.number, t.pipeline, t.metrics) for t in alone
        ]

    def test_it_goes_on_where_a_session_was_interrupted(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(KeyboardInterrupt):
            self.run(tmp_path / "study", Interrupting(3))
        assert len(self.run(tmp_path / "study")) == TRIALS + 1
        assert len(self.run(tmp_path / "study", trials=TRIALS + 2)) == TRIALS + 3
        assert "hears no more" not in capsys.readouterr().err

    def test_making_one_does_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is made to see whether it can be, in a place where nothing runs."""
        monkeypatch.chdir(tmp_path)
        copy.copy(self.make())
        assert not list(tmp_path.iterdir())
