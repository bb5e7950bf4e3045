"""A study as runs of MLflow."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from petra.callbacks.base import Callback, StudyRun
from petra.callbacks.trackers import (
    best_of,
    numbers_of,
    outcome_of,
    parameters_of,
    require,
    settings_of,
)
from petra.core.trial import Trial
from petra.front import Front
from petra.listener import Clock
from petra.report.frame import front_frame
from petra.runtimes.table import files_of

_PARENT, _NAME = "mlflow.parentRunId", "mlflow.runName"
_MOST_PARAMS = 100


class MlflowRuns(Callback):
    """One run for the study, with its settings, the best of its front by number of trials and, in
    the end, the table of the front; below it a run for each trial, with its pipeline and numbers.
    A study that is resumed goes on with its run.

    `uri`: where they go, as MLflow writes it; '': where MLFLOW_TRACKING_URI says, else
    ``mlflow.db`` in the study's directory, which ``mlflow ui --backend-store-uri sqlite:///...``
    shows. `experiment`: its name. `models`: whether the files of the front's members go along.
    """

    name: ClassVar[str] = "mlflow"

    def __init__(self, uri: str = "", experiment: str = "petra", models: bool = False) -> None:
        require("mlflow", extra="mlflow")
        self._uri, self._experiment_name, self._models = uri, experiment, models
        self._client: Any = None
        self._experiment = self._run = ""
        self._ended = 0  # trials that have
        self._directory = Path()

    def on_study_start(self, run: StudyRun) -> None:
        import mlflow

        for talkative in ("mlflow.store.db", "alembic"):  # of making a database
            logging.getLogger(talkative).setLevel(logging.WARNING)
        self._directory = run.directory.resolve()
        self._client = mlflow.MlflowClient(tracking_uri=self._uri or self._usual_uri())
        self._ended = sum(trial.number > 0 for trial in run.finished)
        if self._continued(run.kept):
            return
        self._experiment = self._named_experiment()
        begun = self._client.create_run(self._experiment, tags={_NAME: run.directory.name})
        self._run = begun.info.run_id
        run.keep({"run": self._run})
        self._log_params(self._run, settings_of(run.config))
        for trial in run.finished:
            self._log(trial)

    def on_trial_end(self, trial: Trial, clock: Clock) -> None:
        self._ended = clock.trials
        self._log(trial)

    def on_front_change(self, front: Front) -> None:
        for name, value in best_of(front).items():
            self._client.log_metric(self._run, name, value, step=self._ended)

    def on_study_end(self, front: Front | None, reason: str) -> None:
        if front is not None:
            self._client.log_text(self._run, front_frame(front).to_csv(index=False), "front.csv")
            for trial in front.members if self._models else ():
                self._log_model(trial)
        self._client.set_tag(self._run, "stop_reason", reason or "interrupted")
        self._client.set_terminated(self._run, status="FINISHED" if reason else "KILLED")

    def _usual_uri(self) -> str:
        import mlflow

        if mlflow.is_tracking_uri_set():
            return str(mlflow.get_tracking_uri())
        return f"sqlite:///{self._directory / 'mlflow.db'}"

    def _continued(self, kept: Any) -> bool:
        """Whether the run of an earlier session is there, and goes on now."""
        from mlflow.exceptions import MlflowException

        if not isinstance(kept, dict) or not isinstance(kept.get("run"), str):
            return False
        try:
            found = self._client.get_run(kept["run"])
        except MlflowException:  # it was deleted, or is kept elsewhere
            return False
        self._run, self._experiment = found.info.run_id, found.info.experiment_id
        self._client.update_run(self._run, status="RUNNING")
        return True

    def _named_experiment(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment_name)
        if found is not None:
            return str(found.experiment_id)
        place = None if self._uri else (self._directory / "mlflow").as_uri()
        return str(self._client.create_experiment(self._experiment_name, artifact_location=place))

    def _log(self, trial: Trial) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        tags = {_PARENT: self._run, _NAME: f"trial {trial.number}", "outcome": outcome_of(trial)}
        began = now - int(1000 * trial.seconds)
        nested = self._client.create_run(self._experiment, start_time=began, tags=tags)
        name = nested.info.run_id
        numbers = [Metric(n, v, now, trial.number) for n, v in numbers_of(trial).items()]
        self._client.log_batch(name, metrics=numbers)
        self._log_params(name, parameters_of(trial))
        status = "FAILED" if trial.failed else "FINISHED"
        self._client.set_terminated(name, status=status, end_time=now)

    def _log_params(self, run: str, values: Mapping[str, str]) -> None:
        """In batches of as many as MLflow takes at once."""
        from mlflow.entities import Param

        params = [Param(name, value) for name, value in values.items()]
        for i in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(run, params=params[i : i + _MOST_PARAMS])

    def _log_model(self, trial: Trial) -> None:
        """The files of a member, under ``models/NUMBER``."""
        with tempfile.TemporaryDirectory(prefix="petra-mlflow-") as place:
            for file in files_of(self._directory / trial.artifact):
                shutil.copyfile(file, Path(place) / file.name)
            self._client.log_artifacts(self._run, place, f"models/{trial.number:05d}")
