"""The callbacks that ship: what they write is read back with the library that it is written for."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest

from petra.callbacks.base import Callback, StudyRun
from petra.callbacks.csv_file import CsvFile
from petra.callbacks.table import CALLBACKS, make_callbacks
from petra.callbacks.trackers import best_of, numbers_of, outcome_of, parameters_of, settings_of
from petra.config import CallbackConfig
from petra.core.measurement import Measurement
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import Failure, Proposal, TrialStatus
from petra.testing.callback_suite import CallbackSuite, Interrupting, ready_study
from petra.testing.recorded import RecordedExecutor

LIBRARIES = ["mlflow", "tensorboard", "wandb"]
TUNED = Pipeline((StageSpec("tune", {"epochs": 3, "lr": 0.01}),))


def run(workdir: Path, callback: Callback, *others: Callback, trials: int = 8) -> Any:
    study = ready_study(workdir, trials=trials)
    return study.run(executor=RecordedExecutor, callbacks=[callback, *others])


def in_two_sessions(workdir: Path, name: str) -> Any:
    """A study that was interrupted and resumed, with a callback of that name in each session."""
    first, second = (make_callbacks([CallbackConfig(name=name)])[0] for _ in range(2))
    with pytest.raises(KeyboardInterrupt):
        run(workdir, first, Interrupting(3))
    return run(workdir, second)


# ---- what all of them share ----------------------------------------------------------------------


def test_a_trial_is_numbers_and_parameters() -> None:
    metrics = {"quality": Measurement(0.9), "macs": Measurement(math.inf)}
    test = {"quality": Measurement(0.8), "latency_ms": Measurement(2.0)}
    trial = Proposal(1, TUNED).ended(TrialStatus.COMPLETE, metrics=metrics, test=test, seconds=4.0)
    assert numbers_of(trial) == {
        "quality": 0.9, "quality_test": 0.8, "latency_ms": 2.0, "seconds": 4.0
    }  # fmt: skip
    assert parameters_of(trial)["0.tune.epochs"] == "3"
    assert outcome_of(trial) == "complete"
    failed = Proposal(2, TUNED).ended(
        TrialStatus.FAILED, failure=Failure("export", "X", "no such\nthing")
    )
    assert outcome_of(failed) == "failed: export: no such"
    assert settings_of({"a": {"b": 1, "c": None}, "d": [], "e": "x"}) == {"a.b": "1", "e": "x"}


def test_the_best_of_a_front_is_that_of_each_objective(tmp_path: Path) -> None:
    front = run(tmp_path, CsvFile()).front
    best = best_of(front)
    assert best["front.members"] == len(front.members)
    assert best["best.quality"] == max(t.metrics["quality"].mean for t in front.members)
    assert best["best.size_bytes"] == min(t.metrics["size_bytes"].mean for t in front.members)


# ---- CSV -----------------------------------------------------------------------------------------


class TestCsv(CallbackSuite):
    def make(self) -> Callback:
        return CsvFile()

    def test_it_has_every_trial_of_all_sessions_once(self, tmp_path: Path) -> None:
        done = in_two_sessions(tmp_path, "csv")
        with (tmp_path / "trials.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert sorted(int(row["trial"]) for row in rows) == list(range(9))
        by_number = {int(row["trial"]): row for row in rows}
        for trial in done.trials:
            row = by_number[trial.number]
            assert row["status"] == trial.status.value
            if trial.measured:
                assert float(row["quality"]) == trial.metrics["quality"].mean
            else:
                assert row["reason"] == "made up"

    def test_it_writes_through_no_link(self, tmp_path: Path) -> None:
        (tmp_path / "trials.csv").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(OSError, match="is a link"):
            CsvFile().on_study_start(StudyRun(tmp_path, {}))
        assert not (tmp_path / "elsewhere").exists()


# ---- with libraries ------------------------------------------------------------------------------


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own settings."""
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.slow
@pytest.mark.usefixtures("calm")
class TestMlflow(CallbackSuite):
    def make(self) -> Callback:
        pytest.importorskip("mlflow", reason="mlflow is not installed")
        return CALLBACKS.get("mlflow")()

    def test_a_resumed_study_is_one_run_with_a_run_for_each_trial(self, tmp_path: Path) -> None:
        mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
        done = in_two_sessions(tmp_path, "mlflow")
        client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("petra")
        runs = client.search_runs([experiment.experiment_id])
        (parent,) = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
        nested = [r for r in runs if r is not parent]
        assert {r.data.tags["mlflow.parentRunId"] for r in nested} == {parent.info.run_id}
        names = sorted(r.info.run_name for r in nested)
        assert names == sorted(f"trial {t.number}" for t in done.trials)
        assert parent.info.status == "FINISHED"
        assert parent.data.params["budget.trials"] == "8"
        assert parent.data.metrics["front.members"] == len(done.front.members)
        by_name = {r.info.run_name: r for r in nested}
        for trial in done.trials:
            found = by_name[f"trial {trial.number}"]
            assert found.info.status == ("FAILED" if trial.failed else "FINISHED")
            if trial.measured:
                assert found.data.metrics["quality"] == trial.metrics["quality"].mean
        assert [f.path for f in client.list_artifacts(parent.info.run_id)] == ["front.csv"]

    def test_it_says_nothing_by_itself(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        run(tmp_path, self.make(), trials=2)
        assert capfd.readouterr() == ("", "")


@pytest.mark.slow
class TestTensorBoard(CallbackSuite):
    def make(self) -> Callback:
        pytest.importorskip("tensorboard", reason="tensorboard is not installed")
        return CALLBACKS.get("tensorboard")()

    def test_a_resumed_study_is_one_run_of_scalars(self, tmp_path: Path) -> None:
        pytest.importorskip("tensorboard", reason="tensorboard is not installed")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        done = in_two_sessions(tmp_path, "tensorboard")
        read = EventAccumulator(str(tmp_path / "tensorboard"))
        read.Reload()
        measured = {t.number: t.metrics["quality"].mean for t in done.trials if t.measured}
        found = {e.step: e.value for e in read.Scalars("trial/quality")}
        assert found == pytest.approx(measured, rel=1e-6)
        assert read.Scalars("front/members")[-1].value == len(done.front.members)
        assert not [p for p in (tmp_path / "tensorboard").iterdir() if p.is_dir()], "one run"


@pytest.mark.slow
@pytest.mark.usefixtures("calm")
class TestWandb(CallbackSuite):
    def make(self) -> Callback:
        pytest.importorskip("wandb", reason="wandb is not installed")
        return CALLBACKS.get("wandb")()

    def test_sessions_of_a_study_have_one_run_offline(self, tmp_path: Path) -> None:
        pytest.importorskip("wandb", reason="wandb is not installed")
        in_two_sessions(tmp_path, "wandb")
        runs = [p for p in (tmp_path / "wandb").iterdir() if p.name.startswith("offline-run-")]
        assert len({p.name.rpartition("-")[2] for p in runs}) == 1, "one id"
        assert all(list(p.glob("*.wandb")) for p in runs)
