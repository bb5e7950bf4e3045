"""Follows a study's events and keeps what is to be shown of them at any moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from petra.core.notes import WorkerNote
from petra.core.objective import Constraint, Objective
from petra.core.text import printable
from petra.core.trial import Proposal, Trial, TrialStatus
from petra.listener import Clock, Phase
from petra.progress.words import (
    Names,
    activity,
    counted,
    left_in_words,
    objective_in_words,
    outcome,
    values,
)
from petra.report.numbers_text import duration
from petra.report.pipeline_text import count_statuses

MOST_RUNNING = 8  # lines of what is being done


class View(Protocol):
    """Where lines go."""

    def line(self, text: str, status: str = "", done: float | None = None) -> None:
        """A line that stays. Of a trial, `status` says how it ended, or 'best', and `done` how much
        of all is done by then; it is 'phase' of what begins now, and 'end' of what came of the
        study.
        """


@dataclass(frozen=True)
class Snapshot:
    """A moment: what is done now, how much of all is `done` (None: not known) and what that leaves
    in words, what each worker does, how trials ended, and the best values so far.
    """

    phase: str
    done: float | None
    left: str
    running: tuple[str, ...]
    counts: str
    best: str


class Progress:
    """A listener that writes a line for what is worth one, and gives a `snapshot` of the rest. Safe
    to be told by several threads.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._lock = threading.RLock()
        self._phase, self._phase_began = "starting", time.monotonic()
        self._objectives: tuple[Objective, ...] = ()
        self._constraints: tuple[Constraint, ...] = ()
        self._clock: Clock | None = None
        self._heard = time.monotonic()
        self._baseline: Trial | None = None
        self._trials: list[Trial] = []
        self._best: dict[Objective, Trial] = {}
        self._running: dict[int, str] = {}
        self._names = Names()

    def about(self, objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> None:
        """What the study is about: needed before its first trial is told."""
        with self._lock:
            self._objectives, self._constraints = tuple(objectives), tuple(constraints)

    # ---- events, from any thread -----------------------------------------------------------------

    def started(self, baseline: Trial, clock: Clock) -> None:
        with self._lock:
            self._baseline = baseline
            self._running.clear()  # the untouched model is measured
            self._tick(clock)
        self._view.line(f"untouched model: {values(baseline, self._objectives, None)}")
        if clock.trials:
            self._view.line(f"continuing after {counted(clock.trials, 'trial')}")

    def stage(self, proposal: Proposal, note: WorkerNote) -> None:
        with self._lock:
            before = self._running.get(proposal.number, "")
            self._running[proposal.number] = activity(proposal, note, before)

    def finished(self, trial: Trial, clock: Clock) -> None:
        with self._lock:
            self._running.pop(trial.number, None)
            self._trials.append(trial)
            self._tick(clock)
            name = self._names.of(trial.pipeline)
            better = self._improve(trial)
        how = outcome(trial, self._objectives, self._constraints, self._baseline)
        status = "best" if better else trial.status.value
        self._view.line(f"trial {trial.number}: {how}: {name}", status, clock.done)

    def _improve(self, trial: Trial) -> bool:
        """Whether it is better in an objective than those before it."""
        if trial.status is not TrialStatus.COMPLETE or not trial.comparable:
            return False
        first, better = not self._best, False
        for o in self._objectives:
            if first or o.cost(trial.metrics) < o.cost(self._best[o].metrics):
                self._best[o], better = trial, True
        return better and not first

    def message(self, text: str) -> None:
        said = printable(text)
        if not isinstance(text, Phase):
            self._view.line(said)
            return
        with self._lock:
            if said == self._phase:
                return
            self._phase, self._phase_began = said, time.monotonic()
            self._running.clear()
        self._view.line(said, "phase")

    def came_out(self, text: str) -> None:
        """A line of what came of the study."""
        self._view.line(printable(text), "end")

    def _tick(self, clock: Clock) -> None:
        self._clock, self._heard = clock, time.monotonic()

    # ---- what is to be shown now -----------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        with self._lock:
            done, left = self._time()
            running = [
                f"{f'trial {n}' if n else 'untouched model'}: {text}"
                for n, text in sorted(self._running.items())
            ]
            if (more := len(running) - MOST_RUNNING) > 0:
                running[MOST_RUNNING:] = [f"and {more} more"]
            best = "   ".join(
                objective_in_words(o, t, self._baseline) for o, t in self._best.items()
            )
            return Snapshot(self._phase, done, left, tuple(running), self._counts(), best)

    def _time(self) -> tuple[float | None, str]:
        """The share that is done, and what is left or, before that is known, how long it takes."""
        if self._clock is None:
            return None, duration(time.monotonic() - self._phase_began)
        passed = time.monotonic() - self._heard
        now = replace(self._clock, elapsed_s=self._clock.elapsed_s + passed)
        if now.over:
            now = replace(now, kept_s=max(0.0, now.kept_s - passed))
        if now.left_s is None:
            return None, duration(now.elapsed_s)
        return now.done, left_in_words(now.left_s)

    def _counts(self) -> str:
        if self._clock is None or not self._clock.trials:
            return ""
        earlier = self._clock.trials - len(self._trials)
        return count_statuses(self._trials) + (
            f", {earlier} in earlier sessions" if earlier > 0 else ""
        )
