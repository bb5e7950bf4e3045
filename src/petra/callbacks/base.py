"""The contract of a callback: what it is told of a study while that runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from petra.core.metric import Metric
from petra.core.notes import StepBegan, StepProgress
from petra.core.objective import Constraint, Objective
from petra.core.trial import Proposal, Trial
from petra.front import Front
from petra.listener import Clock


@dataclass(frozen=True)
class StudyRun:
    """What a callback is told when a session of a study begins.

    `directory` is the study's, `config` its settings as a study file has them (JSON data).
    `task` are the metrics that the task measures, the quality first. `finished` are the trials of
    earlier sessions by number, () of a new study. `kept` is what this
    callback kept with the study the last time, None where it has not; `keep(value)` keeps JSON data
    in place of that. A callback that begins something which has a name elsewhere keeps that name,
    and goes on with it when the study is resumed.
    """

    directory: Path
    config: Mapping[str, Any]
    objectives: tuple[Objective, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    task: tuple[Metric, ...] = ()
    finished: tuple[Trial, ...] = ()
    kept: Any = None
    keep: Callable[[object], None] = lambda value: None


class Callback:
    """Hears of a study. Each method is called when its event happens, and does nothing unless a
    subclass says so.

    The constructor takes arguments, those of a study file by their names, and does nothing else but
    raise MissingExtra where a library is not installed: what is wrong is said before anything is
    spent. Calls of one callback never overlap, but come from several threads, and the search waits
    for them. What a callback raises is said once on stderr, with its name; from then on it hears no
    more of this session, and the study goes on. KeyboardInterrupt passes. It runs in the process of
    the study, never in workers, and is not asked for anything: it changes no trial.
    """

    name: ClassVar[str] = ""
    """What it is called in messages and its keepsakes are kept under; '' for the class's name."""

    def on_study_start(self, run: StudyRun) -> None:
        """A session begins, the first or a later one; nothing has been tried in it."""

    def on_trial_start(self, proposal: Proposal) -> None:
        """A worker has begun with a proposal; number 0 is the untouched model."""

    def on_stage(self, proposal: Proposal, step: StepBegan) -> None:
        """A stage of its pipeline began, or its export, measurement or scoring."""

    def on_progress(self, proposal: Proposal, progress: StepProgress) -> None:
        """Part of that step is done: of a training, several times an epoch."""

    def on_trial_end(self, trial: Trial, clock: Clock) -> None:
        """A trial ended, well or not, and is in the store; number 0 is the untouched model."""

    def on_front_change(self, front: Front) -> None:
        """The Pareto set has other members than before, or the same ones with figures that were
        measured again. Comes once in the beginning for the trials of earlier sessions.
        """

    def on_message(self, text: str) -> None:
        """Something worth a line."""

    def on_study_end(self, front: Front | None, reason: str) -> None:
        """The session ended, whatever happened in it; the last call. `front` has what is confirmed,
        and is None where the untouched model was never measured; `reason` says why the search
        stopped, '' when it was interrupted or failed.
        """


EVENTS: Mapping[str, tuple[str, ...]] = {
    "on_study_start": ("run",),
    "on_trial_start": ("proposal",),
    "on_stage": ("proposal", "step"),
    "on_progress": ("proposal", "progress"),
    "on_trial_end": ("trial", "clock"),
    "on_front_change": ("front",),
    "on_message": ("text",),
    "on_study_end": ("front", "reason"),
}
"""The methods of a callback, and what each is given."""
HEARD: Mapping[str, tuple[str, ...]] = {
    "started": ("baseline", "clock"),
    "stage": ("proposal", "note"),
    "finished": ("trial", "clock"),
    "message": ("text",),
}
"""The same of a `petra.listener.Listener`, of which all may be left out, too."""
