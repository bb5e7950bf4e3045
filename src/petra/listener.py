"""What a running study tells whoever watches: a few events, and the silent listener."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from petra.core.notes import WorkerNote
from petra.core.trial import Proposal, Trial


@dataclass(frozen=True)
class Clock:
    """How far a study is: trials finished, seconds spent, and what its budget allows (None: no such
    limit). `kept_s` are the seconds that the final measurements will take, `over` says whether
    nothing but them is left to do.
    """

    trials: int
    elapsed_s: float
    max_trials: int | None = None
    max_seconds: float | None = None
    kept_s: float = 0.0
    over: bool = False

    @property
    def fraction(self) -> float:
        """Share of the budget used, by whichever limit is nearest."""
        shares = [
            used / limit
            for used, limit in (
                (self.trials, self.max_trials),
                (self.elapsed_s, self.max_seconds),
            )
            if limit
        ]
        return min(1.0, max(shares, default=0.0))

    @property
    def left_s(self) -> float | None:
        """Estimated seconds until all is done, the final measurements too; None before anything is
        known.
        """
        if self.over:
            return self.kept_s
        ends = []
        if self.max_seconds is not None:
            ends.append(max(0.0, self.max_seconds - self.kept_s - self.elapsed_s))
        if self.max_trials is not None and self.trials:
            missing = max(0, self.max_trials - self.trials)
            ends.append(missing * self.elapsed_s / self.trials)
        return min(ends) + self.kept_s if ends else None

    @property
    def done(self) -> float:
        """Share of all that is to be done, never all of it; 0 where that is not known."""
        left = self.left_s
        if left is None or self.elapsed_s <= 0:
            return 0.0
        return min(0.99, self.elapsed_s / (self.elapsed_s + left))


class Phase(str):
    """A message that says what a study does from now on, until the next one of these."""

    __slots__ = ()


class Listener(Protocol):
    """Receives a study's events, possibly from several threads."""

    def started(self, baseline: Trial, clock: Clock) -> None:
        """The baseline is measured (or was, in an earlier session); the search begins."""

    def stage(self, proposal: Proposal, note: WorkerNote) -> None:
        """What the worker that has the proposal says."""

    def finished(self, trial: Trial, clock: Clock) -> None:
        """A trial ended and is in the store."""

    def message(self, text: str) -> None:
        """Something worth a line; a `Phase` is what the study does from now on."""


class Silent:
    """Listens to nothing."""

    def started(self, baseline: Trial, clock: Clock) -> None: ...

    def stage(self, proposal: Proposal, note: WorkerNote) -> None: ...

    def finished(self, trial: Trial, clock: Clock) -> None: ...

    def message(self, text: str) -> None: ...


class Unfailing:
    """Passes events on to a listener that may be broken: the first thing that goes wrong in it is
    said, once.

    Ctrl-C still gets through.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._said = threading.Event()

    def started(self, baseline: Trial, clock: Clock) -> None:
        self._pass_on(lambda: self._listener.started(baseline, clock))

    def stage(self, proposal: Proposal, note: WorkerNote) -> None:
        self._pass_on(lambda: self._listener.stage(proposal, note))

    def finished(self, trial: Trial, clock: Clock) -> None:
        self._pass_on(lambda: self._listener.finished(trial, clock))

    def message(self, text: str) -> None:
        self._pass_on(lambda: self._listener.message(text))

    def _pass_on(self, event: Callable[[], None]) -> None:
        try:
            event()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it only watches
            if not self._said.is_set():
                self._said.set()
                with contextlib.suppress(Exception):  # its text and stderr may be as broken
                    kind = type(self._listener).__name__
                    said = f"petra: the listener {kind} failed: {type(error).__name__}: {error}"
                    sys.stderr.write(said[:500] + "\n")
