"""Callbacks that tests listen with."""

from __future__ import annotations

from typing import Any

from petra.callbacks.base import Callback, StudyRun
from petra.core.notes import StepBegan, StepProgress
from petra.core.trial import Proposal, Trial
from petra.front import Front
from petra.listener import Clock


class Everything(Callback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def on_study_start(self, run: StudyRun) -> None:
        self.run = run
        run.keep({"sessions": (run.kept or {"sessions": 0})["sessions"] + 1})
        self.heard.append(("start", len(run.finished)))

    def on_trial_start(self, proposal: Proposal) -> None:
        self.heard.append(("begins", proposal.number))

    def on_stage(self, proposal: Proposal, step: StepBegan) -> None:
        self.heard.append(("stage", step.name))

    def on_progress(self, proposal: Proposal, progress: StepProgress) -> None:
        self.heard.append(("progress", progress.done))

    def on_trial_end(self, trial: Trial, clock: Clock) -> None:
        self.heard.append(("ends", trial.number))

    def on_front_change(self, front: Front) -> None:
        self.heard.append(("front", [t.number for t in front.members]))

    def on_message(self, text: str) -> None:
        self.heard.append(("says", text))

    def on_study_end(self, front: Front | None, reason: str) -> None:
        self.heard.append(("end", (front and len(front), reason)))

    def of(self, kind: str) -> list[Any]:
        return [what for name, what in self.heard if name == kind]


class Failing(Everything):
    """Raises at one of the events."""

    def __init__(self, event: str, error: BaseException) -> None:
        super().__init__()
        setattr(self, event, self._fail)
        self.error = error

    def _fail(self, *told: object) -> None:
        raise self.error
