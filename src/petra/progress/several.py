"""Several listeners to one study."""

from __future__ import annotations

from petra.core.notes import WorkerNote
from petra.core.trial import Proposal, Trial
from petra.listener import Clock, Listener, Unfailing


class Several:
    """Passes events on to several listeners, any of which may be broken."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = [Unfailing(one) for one in listeners]

    def started(self, baseline: Trial, clock: Clock) -> None:
        for one in self._listeners:
            one.started(baseline, clock)

    def stage(self, proposal: Proposal, note: WorkerNote) -> None:
        for one in self._listeners:
            one.stage(proposal, note)

    def finished(self, trial: Trial, clock: Clock) -> None:
        for one in self._listeners:
            one.finished(trial, clock)

    def message(self, text: str) -> None:
        for one in self._listeners:
            one.message(text)
