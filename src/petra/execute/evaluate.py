"""One candidate from pipeline to trial: built, then judged, whatever goes wrong on the way."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from petra.core.measurement import Measurement
from petra.core.notes import StepBegan, WorkerNote
from petra.core.objective import violation
from petra.core.rivals import Rivals
from petra.core.trial import Failure, Proposal, Trial, TrialStatus
from petra.execute.base import Assignment
from petra.execute.build import eager_latency_ms
from petra.execute.builder import Builder, Caller
from petra.execute.built import Built
from petra.execute.directory import Splits, check_untouched, check_writable, make_directory
from petra.execute.early import NOTHING, Early, Way, audit_trace, built_after
from petra.execute.prospects import Left
from petra.execute.verdict import Alone, Artifact, Judge, Timing, Verdict
from petra.measure.launches import LAUNCHES, spread_by
from petra.workers.failures import TimeLimitExceeded, WorkerDied, WorkerError


class BudgetExhausted(Exception):
    """The study's time ran out while a candidate was being built; it is abandoned and not
    recorded.
    """


class Evaluator:
    """Candidates of one study, each built and judged where a caller is. Several may be under way at
    a time. What all are compared with is `baseline`, once there is one.
    """

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.baseline: Trial | None = None
        self._splits = Splits(assignment.paths.data, self.check_writable)
        self._predicted: set[Path] = set()  # in this session; what an earlier one left may be torn
        self._untouched: dict[str, Path] = {}  # its predictions, by split
        for place in (assignment.paths.artifacts, assignment.paths.logs):
            make_directory(place)

    def write(self, split: str, caller: Caller) -> None:
        """Write a split's inputs and targets, once. Raises what reading them raises, every time."""
        self._splits.write(split, caller)

    def accept(self, proposal: Proposal, caller: Caller) -> None:
        """See that a candidate can be evaluated. Raises PetraError for what only cheaper executors
        do, and what reading the validation split raises.
        """
        self.write("val", caller)
        self._pair_with_untouched("val", caller)

    def _pair_with_untouched(self, split: str, caller: Caller) -> None:
        """Have the untouched model's predictions of a split, to compare others with by item."""
        if self.baseline is not None and split not in self._untouched:
            self._untouched[split] = self._predictions(self.baseline, split, caller)

    def _predictions(self, trial: Trial, split: str, caller: Caller) -> Path:
        """A file with a trial's predictions of a split, which has been written."""
        path = self.assignment.paths.predictions(split, trial.number)
        if path not in self._predicted:
            self._judge(caller).predict(self._artifact(trial), split, path)
            self._predicted.add(path)
        return path

    def facts(self, caller: Caller) -> Mapping[str, float]:
        """What is worth knowing of the untouched model, for orientation only."""
        limits = self.assignment.limits
        try:
            eager = caller.call(
                eager_latency_ms, time_limit_s=limits.time_s, memory_limit_mb=limits.memory_mb
            )
        except WorkerError:
            return {}
        return {"eager_latency_ms": eager} if math.isfinite(eager) else {}

    def evaluate(
        self,
        proposal: Proposal,
        caller: Caller,
        *,
        rivals: Rivals | None,
        remaining_s: float | None,
        on_note: Callable[[WorkerNote], None],
        alone: Alone,
    ) -> Trial:
        """Build, verify and measure, the last inside `alone()`, in which nothing else of ours runs.
        `rivals` is None for the untouched model alone.

        Every failure of the candidate becomes a Trial. Raises BudgetExhausted when `remaining_s`
        runs out, WorkerDied when the caller was closed by its owner, and StoreError when the fault
        is the directory's.
        """
        started = time.perf_counter()
        limits, place = self.assignment.limits, self.assignment.paths.artifact(proposal.number)
        self.check_place()
        shutil.rmtree(place, ignore_errors=True)  # left over from a session that was killed
        step = _Step()

        def watch(note: WorkerNote) -> None:
            step.see(note)
            on_note(note)

        limit = limits.time_s if remaining_s is None else min(limits.time_s, max(remaining_s, 1.0))
        way = Way(caller, place, limit, started, watch, alone)
        try:
            return self._attempt(proposal, rivals, way)
        except TimeLimitExceeded as error:
            if limit < limits.time_s:
                self._clear(place)
                raise BudgetExhausted from None
            return self._failed(proposal, TrialStatus.TIMED_OUT, step.name, error, caller, started)
        except Exception as error:
            if isinstance(error, WorkerDied) and caller.closed:
                raise
            return self._failed(proposal, TrialStatus.FAILED, step.name, error, caller, started)

    def _attempt(self, proposal: Proposal, rivals: Rivals | None, way: Way) -> Trial:
        """The trial of a candidate in which nothing goes wrong. Raises what does."""
        builder = Builder(way.caller, self.assignment.limits)
        judge, target = self._judge(way.caller), self.assignment.payload.target
        opponent = self._opponent() if proposal.number else None
        early, screened = Early(self.assignment, proposal, rivals), NOTHING
        try:
            if opponent:
                screened = early.costs(builder, judge, opponent, way)
            built = builder.build(
                proposal.pipeline,
                target,
                way.place,
                fidelity=proposal.fidelity,
                gate=early.gate(screened),
                time_limit_s=max(1.0, way.limit_s - way.seconds),
                on_note=way.on_note,
            )
        except Left as left:
            return early.left(left, screened, way.seconds)
        verdict = judge.judge(
            built,
            way.place,
            target,
            step=len(proposal.pipeline) + 1,
            against=opponent,
            timing=self._timing(rivals),
            keep=None if proposal.number else self.assignment.paths.predictions("val", 0),
            time_limit_s=way.limit_s,
            on_note=way.on_note,
            alone=way.alone,
        )
        if not proposal.number:
            self._predicted.add(self.assignment.paths.predictions("val", 0))
        trial = self._finished(proposal, built_after(screened, built), verdict, way.seconds)
        found = screened.found or built.hopeless
        return replace(trial, trace=(*trial.trace, audit_trace(found))) if found else trial

    def confirm(self, trial: Trial, caller: Caller) -> dict[str, Measurement]:
        """Judge a member of the front again: its quality on the test split, which has been written,
        and its speed, measured longer.
        """
        self.check_place()
        self._pair_with_untouched("test", caller)
        predictions = self.assignment.paths.predictions("test", trial.number)
        found = self._judge(caller).confirm(
            self._artifact(trial), against=self._opponent(), predictions=predictions
        )
        self._predicted.add(predictions)
        return found

    def time_again(self, trial: Trial, caller: Caller) -> dict[str, Measurement]:
        """The speed of a member of the front, in a further launch."""
        self.check_place()
        return self._judge(caller).time_again(self._artifact(trial), against=self._opponent())

    def difference(self, ours: Trial, theirs: Trial, caller: Caller) -> Measurement:
        """How much more of the quality one trial has than another on the test split, which has been
        written: paired by item.
        """
        found = [self._predictions(trial, "test", caller) for trial in (ours, theirs)]
        return self._judge(caller).difference(found[0], found[1], "test")

    def repeat(self, trial: Trial, seed: int, caller: Caller) -> dict[str, Measurement]:
        """Build a trial's pipeline again with another seed, and judge what comes of it on the test
        split, which has been written.
        """
        self.check_place()
        assignment = self.assignment
        self._pair_with_untouched("test", caller)
        with tempfile.TemporaryDirectory(dir=assignment.paths.artifacts) as place:
            built = Builder(caller, assignment.limits).build(
                trial.pipeline, assignment.payload.target, Path(place), seed=seed
            )
            return self._judge(caller).score(built, Path(place), assignment.payload.target, "test")

    def check_place(self) -> None:
        """Raise StoreError when the study's directory is not held any more or has lost what all
        candidates need.
        """
        self.assignment.held()
        if self.baseline is None:
            return
        if self.baseline.artifact:
            check_untouched(self.assignment.paths.root / self.baseline.artifact)

    def check_writable(self) -> None:
        """Raise StoreError when the directory cannot take a megabyte: then the disk failed, not the
        candidate.
        """
        self.check_place()
        check_writable(self.assignment.paths.artifacts)

    def _judge(self, caller: Caller) -> Judge:
        assignment = self.assignment
        return Judge(
            caller, assignment.paths.data, assignment.limits, assignment.host, self._untouched
        )

    def _timing(self, rivals: Rivals | None) -> Timing:
        """The untouched model in full and in several launches, candidates as far as it matters."""
        if self.baseline is None or rivals is None:
            return Timing(launches=LAUNCHES)
        spread = spread_by(self.baseline.metrics["latency_ratio"])
        if not self.assignment.savings.timing:
            return Timing(spread=spread, raced=False)
        return Timing(self.assignment.metrics, rivals, spread)

    def _opponent(self) -> Artifact:
        """The untouched model, with which all others are paired."""
        if self.baseline is None:
            raise ValueError("trial 0 must be evaluated before any other")
        return self._artifact(self.baseline)

    def _artifact(self, trial: Trial) -> Artifact:
        file = self.assignment.paths.root / trial.artifact
        return Artifact(file, self.assignment.payload.target)

    def _finished(
        self, proposal: Proposal, built: Built, verdict: Verdict, seconds: float
    ) -> Trial:
        baseline = self.baseline.metrics if self.baseline else verdict.metrics
        outside = violation(self.assignment.constraints, verdict.metrics, baseline) > 0
        infeasible = outside and proposal.number > 0
        paths = self.assignment.paths
        return proposal.ended(
            TrialStatus.INFEASIBLE if infeasible else TrialStatus.COMPLETE,
            metrics=verdict.metrics,
            trace=built.trace,
            artifact=paths.relative(paths.artifact(proposal.number) / built.files[0].name),
            parity=verdict.parity,
            seconds=seconds,
        )

    def _clear(self, place: Path) -> None:
        """Remove what a candidate left, if this is still our directory."""
        self.assignment.held()
        shutil.rmtree(place, ignore_errors=True)

    def _failed(
        self,
        proposal: Proposal,
        status: TrialStatus,
        stage: str,
        error: Exception,
        caller: Caller,
        started: float,
    ) -> Trial:
        """The trial of a candidate that failed. Raises StoreError when the directory did."""
        self._clear(self.assignment.paths.artifact(proposal.number))
        self.check_writable()
        kind = str(getattr(error, "kind", type(error).__name__))
        peak = getattr(error, "peak_memory_mb", caller.peak_memory_mb)
        return proposal.ended(
            status,
            failure=Failure(stage, kind, str(error), peak),
            seconds=time.perf_counter() - started,
        )


class _Step:
    """Remembers the stage a worker was in, for the failure's record."""

    def __init__(self) -> None:
        self.name = "start"

    def see(self, note: WorkerNote) -> None:
        if isinstance(note, StepBegan):
            self.name = str(note.name)  # what a worker says need not be what it should
