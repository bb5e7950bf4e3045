"""Callbacks are refused before anything is spent, with what they lack."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import petra
from petra.api import create_or_continue, study_from_file
from petra.callbacks.base import Callback
from petra.config import parse_config
from petra.core.errors import ConfigError, MissingExtra, PetraError
from petra.sources import calls
from petra.testing.callback_suite import ready_study
from petra.testing.recorded import RecordedExecutor

PAIR = (torch.zeros(24, 6), torch.arange(24) % 3)
PROBLEM = (nn.Linear(6, 3), petra.classification(PAIR, PAIR, PAIR))


class Misspelt(Callback):
    def on_trial_finish(self, trial: object) -> None: ...


class TooFew(Callback):
    def on_trial_end(self, trial: object) -> None: ...  # type: ignore[override]


class TooMany:
    def finished(self, trial: object, clock: object, more: object) -> None: ...


BAD = [
    (
        [object()],
        "callbacks[0]: got an object, which hears nothing",
        "one or more of: on_study_sta",
    ),
    ([Callback(), Misspelt()], "callbacks[1]: Misspelt has 'on_trial_finish'", "'on_trial_end'?"),
    ([TooFew()], "callbacks[0]: TooFew.on_trial_end cannot", "on_trial_end(trial, clock)"),
    ([TooMany()], "callbacks[0]: TooMany.finished cannot", "finished(trial, clock)"),
    ([Callback], "callbacks[0]: got the class Callback", "make one: Callback(...)"),
    (Callback(), "callbacks: got a Callback", "give a list"),
    (7, "callbacks: got an int", "give a list"),
    (["tensorbord"], "callbacks[0]: unknown callback 'tensorbord'", "'tensorboard'?"),
    ([{"name": "csv", "args": {"x": 1}}], "callbacks[0].args: got an unexpected", "(file"),
    ([{"name": "csv", "args": {"file": "../x.csv"}}], "csv: file: got '../x.csv'", "trials.csv"),
    ([{"nam": "csv"}], "callbacks.0.name: field required", ""),
    ([{"name": "csv", "arg": {}}], "callbacks.0.arg: unknown key", ""),
]


@pytest.mark.parametrize(("callbacks", "said", "hint"), BAD)
def test_what_is_no_callback_is_refused_at_once(
    tmp_path: Path, callbacks: Any, said: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        petra.compress(*PROBLEM, callbacks=callbacks, workdir=tmp_path / "study")
    assert said in str(raised.value)
    assert hint in str(raised.value)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("listener", [object(), 3, TooMany(), TooMany])
def test_what_is_no_listener_is_refused_at_once(tmp_path: Path, listener: Any) -> None:
    ready = ready_study(tmp_path)
    with pytest.raises(ConfigError, match=r"^listener: "):
        ready.run(listener, executor=RecordedExecutor)
    assert ready.trials == []


@pytest.mark.parametrize("name", ["mlflow", "tensorboard", "wandb"])
def test_a_library_that_is_not_there_is_named_with_its_extra(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "petra.callbacks.trackers.find_spec", lambda n: None if n == name else real(n)
    )
    file = tmp_path / "study.yaml"
    file.write_text(f"workload: digits\ncallbacks: {name}\nworkdir: {tmp_path / 'run'}\n")
    with pytest.raises(MissingExtra) as raised:
        study_from_file(file)
    assert f"pip install 'petra[{name}]'" in raised.value.hint
    assert not (tmp_path / "run").exists()


def test_going_on_with_somebody_s_study_would_call_its_callbacks() -> None:
    """They write, and send, where the study says: that takes trust."""
    data = {"workload": "digits", "callbacks": [{"name": "mlflow", "args": {"uri": "http://x"}}]}
    assert calls(parse_config(data), ()) == 'callback: "mlflow" with {"uri": "http://x"}'
    assert calls(parse_config({"workload": "digits"}), ()) == ""


def test_a_study_file_names_no_code(tmp_path: Path) -> None:
    config = parse_config({"callbacks": ["os:system"], "workdir": str(tmp_path / "s")})
    with pytest.raises(PetraError, match="unknown callback 'os:system'"):
        create_or_continue(config, *PROBLEM)
