"""A study as a run of Weights & Biases."""

from __future__ import annotations

import secrets
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
from petra.core.errors import ConfigError
from petra.core.text import shown
from petra.core.trial import Trial
from petra.front import Front
from petra.listener import Clock
from petra.report.frame import front_frame

_MODES = ("offline", "online")


class WandbRun(Callback):
    """One run for the study: its settings, a step for each trial with what was measured and its
    pipeline, the best of the front, and in the end the front as a table. A study that is resumed
    goes on with its run.

    `project`: its name. `mode`: nothing leaves this machine unless it is "online"; offline, a
    session's steps are in ``wandb`` of the study's directory, and ``wandb sync --append
    DIR/wandb/offline-run-*`` sends all of them as one run.
    """

    name: ClassVar[str] = "wandb"

    def __init__(self, project: str = "petra", mode: str = "offline") -> None:
        if mode not in _MODES:
            raise ConfigError(
                f"wandb: mode: got {shown(mode)}", hint=f"allowed: {', '.join(_MODES)}"
            )
        require("wandb", extra="wandb")
        self._project, self._mode = project, mode
        self._run: Any = None
        self._last = 0  # trial that ended

    def on_study_start(self, run: StudyRun) -> None:
        import wandb

        known = isinstance(run.kept, dict) and isinstance(run.kept.get("run"), str)
        name = run.kept["run"] if known else secrets.token_hex(4)
        self._run = wandb.init(
            project=self._project,
            id=name,
            name=run.directory.resolve().name,
            dir=run.directory,
            mode="online" if self._mode == "online" else "offline",
            resume="allow" if self._mode == "online" else None,
            config=settings_of(run.config),
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("trial")
        self._run.define_metric("*", step_metric="trial")
        run.keep({"run": name})
        for trial in () if known else run.finished:
            self._log(trial)

    def on_trial_end(self, trial: Trial, clock: Clock) -> None:
        self._log(trial)

    def on_front_change(self, front: Front) -> None:
        self._run.log({"trial": self._last, **best_of(front)})

    def on_study_end(self, front: Front | None, reason: str) -> None:
        import wandb

        if front is not None:
            table = front_frame(front)
            rows = table.astype(object).to_numpy().tolist()
            self._run.log({"front": wandb.Table(columns=list(table.columns), data=rows)})
        self._run.finish(exit_code=0 if reason else 1)

    def _log(self, trial: Trial) -> None:
        self._last = trial.number
        said = {"outcome": outcome_of(trial), "pipeline": parameters_of(trial)["pipeline"]}
        self._run.log({"trial": trial.number, **numbers_of(trial), **said})
