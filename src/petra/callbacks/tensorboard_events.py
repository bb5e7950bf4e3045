"""A study as scalars of TensorBoard, by number of the trial."""

from __future__ import annotations

from typing import Any, ClassVar

from petra.callbacks.base import Callback, StudyRun
from petra.callbacks.trackers import best_of, numbers_of, outcome_of, require
from petra.core.trial import Trial
from petra.front import Front
from petra.listener import Clock
from petra.report.pipeline_text import pipeline_in_words


class TensorBoardEvents(Callback):
    """What is measured of each trial, under ``trial/``, and the best of the front after so many
    trials, under ``front/``, in ``tensorboard`` of the study's directory: ``tensorboard --logdir
    DIR/tensorboard``. A study that is resumed goes on in the same place, as one run.
    """

    name: ClassVar[str] = "tensorboard"

    def __init__(self) -> None:
        require("tensorboard", extra="tensorboard")
        self._writer: Any = None
        self._ended = 0

    def on_study_start(self, run: StudyRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(run.directory / "tensorboard")
        self._ended = sum(trial.number > 0 for trial in run.finished)
        run.keep({"known": True})
        for trial in run.finished if run.kept is None else ():
            self._write(trial)

    def on_trial_end(self, trial: Trial, clock: Clock) -> None:
        self._ended = clock.trials
        self._write(trial)

    def on_front_change(self, front: Front) -> None:
        for name, value in best_of(front).items():
            self._writer.add_scalar(f"front/{name.removeprefix('front.')}", value, self._ended)

    def on_study_end(self, front: Front | None, reason: str) -> None:
        self._writer.close()

    def _write(self, trial: Trial) -> None:
        for name, value in numbers_of(trial).items():
            self._writer.add_scalar(f"trial/{name}", value, trial.number)
        text = f"{outcome_of(trial)}: {pipeline_in_words(trial.pipeline)}"
        self._writer.add_text("trial/pipeline", text, trial.number)
        self._writer.flush()
