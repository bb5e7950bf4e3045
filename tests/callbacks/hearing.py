"""A callback that writes down what it is told, and a hub without a study, for tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from petra.callbacks.base import Callback, StudyRun
from petra.callbacks.hub import Hub, ears_of
from petra.core.measurement import Measurement
from petra.core.notes import StepBegan, StepProgress
from petra.core.objective import named_objectives
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import Proposal, Trial, TrialStatus
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


class Notes(dict[str, Any]):
    """Of a study that is not there."""

    def note(self, name: str) -> Any:
        return self.get(name)

    def set_note(self, name: str, value: object) -> None:
        self[name] = value


def hub(*callbacks: object, last: Callable[[], Any] = lambda: (None, "done"), **told: Any) -> Hub:
    run = StudyRun(Path(), {}, named_objectives(["quality", "size_bytes"]), **told)
    return Hub(ears_of((), (), callbacks), run, Notes(), last)


def measured(number: int, quality: float, size: float) -> Trial:
    metrics: Mapping[str, Measurement] = {
        "quality": Measurement(quality),
        "size_bytes": Measurement(size),
        "latency_ratio": Measurement(1.0),
    }
    pipeline = Pipeline((StageSpec("tune", {"epochs": number}),) if number else ())
    return Proposal(number, pipeline).ended(TrialStatus.COMPLETE, metrics=metrics)
