"""Leaving a candidate early: when, what is kept of it, and who is evaluated in full anyway."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from petra.core.errors import ExportError
from petra.core.measurement import Measurement
from petra.core.notes import WorkerNote
from petra.core.rivals import Rivals
from petra.core.trial import GIVEN, SCREEN, Failure, Proposal, StageTrace, Trial, TrialStatus
from petra.execute.base import Assignment
from petra.execute.builder import Builder, Caller
from petra.execute.built import Built
from petra.execute.gate import Gate
from petra.execute.prospects import Hopeless, Left, audited
from petra.execute.screen import Screen, Screened, more, plan, with_prefix
from petra.execute.verdict import Alone, Artifact, Judge
from petra.workers.failures import TimeLimitExceeded, WorkerDied

NOTHING = Screened({}, {}, ())


@dataclass(frozen=True)
class Way:
    """Where and how one candidate is evaluated, since when, by `time.perf_counter`."""

    caller: Caller
    place: Path
    limit_s: float
    started: float
    on_note: Callable[[WorkerNote], None]
    alone: Alone

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started


@dataclass(frozen=True)
class Early:
    """What one candidate may be left for, in the light of its `rivals`; None: for nothing. Nor is
    one that a person gave to begin with: its figures are the answer to a question.
    """

    assignment: Assignment
    proposal: Proposal
    rivals: Rivals | None

    @property
    def audit(self) -> bool:
        """Whether it is one of those that stay whatever is found."""
        return audited(self.assignment.payload.seed, self.proposal.pipeline)

    @property
    def asked(self) -> bool:
        """Whether a person wants to know."""
        return self.proposal.origin == GIVEN

    def costs(self, builder: Builder, judge: Judge, opponent: Artifact, way: Way) -> Screened:
        """What it costs, found without training it; `NOTHING` where nobody looked, and where
        something failed that need not fail with training. No file is left.

        Raises Left when its costs make it hopeless, ExportError where what it is cannot be
        exported, however it is trained, TimeLimitExceeded, and WorkerDied when the caller was
        closed by its owner.
        """
        payload, pipeline = self.assignment.payload, self.proposal.pipeline
        if self.rivals is None or self.asked or not self.assignment.savings.screen:
            return NOTHING
        planned = plan(pipeline, payload, self.rivals).fidelity
        if planned is None or not more(self.proposal.fidelity, planned):
            return NOTHING
        screen = Screen(builder, judge, payload, opponent, self.rivals)
        try:
            screened = screen.screened(
                pipeline,
                planned,
                way.place,
                time_limit_s=way.limit_s,
                on_note=way.on_note,
                alone=way.alone,
            )
        except (ExportError, TimeLimitExceeded):
            raise
        except Exception as error:
            if isinstance(error, WorkerDied) and builder.caller.closed:
                raise
            return NOTHING
        finally:
            self.assignment.held()
            shutil.rmtree(way.place, ignore_errors=True)
        if screened.found and not self.audit:
            raise Left(screened.found, screened.metrics, screened.trace)
        return screened

    def gate(self, screened: Screened) -> Gate | None:
        """What its quality has to pass before export. Only of candidates that are trained in full
        can anything be said.
        """
        savings = self.assignment.savings
        if self.rivals is None or not (savings.quality_gate or savings.learning_curves):
            return None
        if self.asked or not self.proposal.fidelity.full:
            return None
        return Gate(
            self.rivals,
            screened.known,
            self.audit,
            quality=savings.quality_gate,
            curves=savings.learning_curves,
        )

    def left(self, left: Left, screened: Screened, seconds: float) -> Trial:
        """The trial of a candidate that was left, with what is known of it."""
        found = left.found
        metrics = {**screened.metrics, **left.metrics}
        if left.trace:
            metrics.setdefault("params", Measurement(float(left.trace[-1].params_after)))
        host = self.assignment.host
        return self.proposal.ended(
            TrialStatus.SCREENED,
            metrics={name: replace(m, host=host) for name, m in metrics.items()},
            failure=Failure(SCREEN, found.kind, found.reason),
            trace=left.trace,
            seconds=seconds,
        )


def built_after(screened: Screened, built: Built) -> Built:
    """What was built, with the seconds of stages that had run when its costs were asked for."""
    trace = with_prefix(built.trace, screened.trace)
    return replace(built, trace=trace, train_s=sum(t.seconds for t in trace if not t.cached))


def audit_trace(found: Hopeless) -> StageTrace:
    """What a trial says that would have been left, were it not for the audit."""
    return StageTrace(SCREEN, details={"audit": found.kind, "reason": found.reason})
