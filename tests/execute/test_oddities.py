"""Real studies with odd metrics, data and directories: the trial fails, or one message says what is
wrong.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import petra
from petra.core.errors import StoreError
from petra.core.measurement import Measurement
from petra.core.metric import Metric, task_metric
from petra.core.trial import StageTrace, Trial, TrialStatus
from petra.listener import Clock, Silent
from petra.methods.base import Context, Stage
from petra.methods.table import STAGES
from petra.report.record import StudyRecord
from petra.session import BaselineError
from petra.space.effects import FLOAT_WEIGHTS, Effects
from petra.tasks.classification import Classification
from petra.tasks.data import Split
from petra.tasks.inputs import Outputs
from petra.tasks.scores import Accuracy


@dataclass(frozen=True)
class Precision(Accuracy):
    """Of class 0 among the items predicted to be of it: 0 / 0 where there are none. Prints what it
    sees.
    """

    @property
    def metric(self) -> Metric:
        return task_metric("precision", maximize=True)

    def value(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> float:
        hit = targets[outputs["output"].argmax(1) == 0] == 0
        return float(hit.double().mean())

    def measure(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Measurement:
        return Measurement(self.value(outputs, targets, ids), 0.0, len(targets))


@dataclass(frozen=True)
class Silence(Stage):
    """Never predicts class 0."""

    name: ClassVar[str] = "odd.silence"
    effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS])

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        with torch.no_grad():
            model[-1].bias[0] = -1000.0  # type: ignore[index]
        return model, StageTrace(self.name)


@dataclass(frozen=True)
class Harmless(Silence):
    """Predicts as before."""

    name: ClassVar[str] = "odd.harmless"

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        with torch.no_grad():
            model[-1].weight.mul_(1.001)  # type: ignore[index, union-attr, operator]
        return model, StageTrace(self.name)


class Unreadable(torch.utils.data.Dataset[Any]):
    """Fails from the third time on that it is read in whole: when models are confirmed."""

    def __init__(self, x: Tensor, y: Tensor, marker: Path) -> None:
        self.x, self.y, self.marker = x, y, marker

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self.marker.exists():
            raise ValueError("the archive is damaged")
        return self.x[index], self.y[index]


def splits() -> tuple[nn.Module, dict[str, Split]]:
    torch.manual_seed(0)
    x = torch.randn(90, 6)
    y = x[:, :3].argmax(1)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    parts = {"train": slice(0, 40), "val": slice(40, 70), "test": slice(70, 90)}
    return model, {name: Split.of((x[part], y[part]), name=name) for name, part in parts.items()}


@pytest.fixture(autouse=True)
def _stages() -> Iterator[None]:
    for stage in (Silence, Harmless):
        STAGES.register(stage.name, stage)
    yield
    STAGES.forget(Silence.name, Harmless.name)


SETTINGS: dict[str, Any] = {
    "search": "uniform",
    "objectives": ("quality", "size"),
    "space": {
        "stages": {"odd.silence": {}, "odd.harmless": {}},
        "max_length": 1,
        "initial": [["odd.silence"]],
    },
    "budget": {"trials": 2},
}


@pytest.mark.slow
def test_a_metric_that_is_nan_fails_its_trial_once_and_for_all(tmp_path: Path) -> None:
    model, parts = splits()
    for _ in range(2):
        study = petra.compress(
            model,
            petra.classification(**parts, metric=Precision()),
            workdir=tmp_path / "study",
            **SETTINGS,
        )
        status = [t.status for t in study.trials]
        assert status == [TrialStatus.COMPLETE, TrialStatus.FAILED, TrialStatus.COMPLETE]
        failure = study.trials[1].failure
        assert failure is not None
        assert (failure.stage, failure.kind) == ("score", "ScoreError")
        assert "Precision returned nan for precision" in failure.message
        assert StudyRecord.load(study.directory).stop_reason


@pytest.mark.slow
def test_a_baseline_whose_metric_is_nan_says_so_and_not_something_about_operators(
    tmp_path: Path,
) -> None:
    model, parts = splits()
    with torch.no_grad():
        model[-1].bias[0] = -1000.0  # type: ignore[index, operator]
    with pytest.raises(
        BaselineError, match=r"score: Precision returned nan for precision"
    ) as caught:
        petra.compress(
            model,
            petra.classification(**parts, metric=Precision()),
            workdir=tmp_path / "study",
            **SETTINGS,
        )
    assert "operator" not in str(caught.value)
    assert "`score`" in caught.value.hint


class Meddling(Silent):
    """Does something when the first candidate has finished."""

    def __init__(self, meddle: Any) -> None:
        self.meddle = meddle

    def finished(self, trial: Trial, clock: Clock) -> None:
        self.meddle()


@pytest.mark.slow
def test_a_test_split_that_cannot_be_read_leaves_the_front_unconfirmed_and_the_study_done(
    tmp_path: Path,
) -> None:
    model, parts = splits()
    marker = tmp_path / "damaged"
    x, y = next(parts["test"].batches(100))
    assert isinstance(x, Tensor)
    task = Classification(
        parts["train"], parts["val"], Split.of(Unreadable(x, y, marker), name="test")
    )
    study = petra.compress(
        model, task, workdir=tmp_path / "study", listener=Meddling(marker.touch), **SETTINGS
    )
    record = StudyRecord.load(study.directory)
    assert record.stop_reason
    assert record.unconfirmed
    for reason in record.unconfirmed.values():
        assert "test split, item 0: reading it raised ValueError: the archive is damaged" in reason
    marker.unlink()
    again = petra.compress(model, task, workdir=tmp_path / "study", **SETTINGS)
    assert all(t.test for t in (again.trials[0], *again.front.members))


@pytest.mark.slow
def test_artifacts_removed_under_a_run_end_it_with_one_message(tmp_path: Path) -> None:
    model, parts = splits()
    task, place = Classification(**parts), tmp_path / "study"
    remove = Meddling(lambda: (place / "artifacts").rename(tmp_path / "kept"))
    with pytest.raises(StoreError, match=r"artifacts/00000/model\.onnx is gone"):
        petra.compress(model, task, workdir=place, listener=remove, **SETTINGS)
    finished = [t.number for t in petra.load_study(place).trials]
    assert finished == [0, 1]
    with pytest.raises(StoreError, match="is gone"):
        petra.compress(model, task, workdir=place, **SETTINGS)
    shutil.rmtree(place / "artifacts", ignore_errors=True)
    (tmp_path / "kept").rename(place / "artifacts")
    study = petra.compress(model, task, workdir=place, **SETTINGS)
    assert [t.status for t in study.trials] == [TrialStatus.COMPLETE] * 3
