"""One candidate from pipeline to trial: built in a worker, measured in a process of its own, judged
here.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from petra.core.errors import StoreError
from petra.core.measurement import Measurement
from petra.core.objective import Constraint, violation
from petra.core.trial import Failure, Proposal, Trial, TrialStatus
from petra.execute.build import Built, build_candidate
from petra.execute.judge import Judged, judge, targets_file
from petra.measure.bench_main import Request
from petra.measure.client import run_bench
from petra.runtimes.base import Target
from petra.workers.isolate import TimeLimitExceeded, Worker, WorkerDied


class BudgetExhausted(Exception):
    """The study's time ran out while a candidate was being built; it is abandoned and not
    recorded.
    """


@dataclass(frozen=True)
class Limits:
    """What one trial may use."""

    time_s: float
    memory_mb: float


@dataclass
class Evaluator:
    """Judges candidates of one study, in `directory`.

    `held` raises StoreError when the directory is no longer this process's to write in.
    """

    directory: Path
    target: Target
    limits: Limits
    host: str
    constraints: tuple[Constraint, ...] = ()
    baseline: Trial | None = None
    held: Callable[[], None] = lambda: None

    def artifact_dir(self, number: int) -> Path:
        return self.directory / "artifacts" / f"{number:05d}"

    def evaluate(
        self,
        proposal: Proposal,
        worker: Worker,
        *,
        remaining_s: float | None,
        on_note: Callable[[object], None],
        alone: Callable[[], AbstractContextManager[None]],
    ) -> Trial:
        """Build, verify and measure, the last inside `alone()`, in which nothing else of ours runs.

        Every failure of the candidate becomes a Trial. Raises BudgetExhausted when `remaining_s`
        runs out, WorkerDied when the worker was closed by its owner, and StoreError when the fault
        is the directory's.
        """
        started = time.perf_counter()
        place = self.artifact_dir(proposal.number)
        self.check_place()
        shutil.rmtree(place, ignore_errors=True)  # left over from a session that was killed
        step = _Step()

        def watch(note: object) -> None:
            step.see(note)
            on_note(note)

        limit = (
            self.limits.time_s
            if remaining_s is None
            else min(self.limits.time_s, max(remaining_s, 1.0))
        )
        run = _Call(worker, limit, self.limits.memory_mb, watch)
        try:
            built: Built = run(build_candidate, proposal.pipeline, place)
            after = len(proposal.pipeline) + 1
            watch(("stage", after, "measure"))
            with alone():
                metrics = self._measure(built, place, proposal.number)
            predictions, reference = place / "predictions.npz", place / "reference.npz"
            targets = targets_file(self.directory / "data", "val")
            judged: Judged = run(judge, predictions, targets, reference, built.quantized, after)
            predictions.unlink()
            reference.unlink()
            seconds = time.perf_counter() - started
            return self._finished(
                proposal, built, metrics | self._counted(built, judged), judged, seconds
            )
        except TimeLimitExceeded as error:
            if limit < self.limits.time_s:
                self._clear(place)
                raise BudgetExhausted from None
            return self._failed(proposal, TrialStatus.TIMED_OUT, step.name, error, worker, started)
        except Exception as error:
            if isinstance(error, WorkerDied) and worker.closed:
                raise
            return self._failed(proposal, TrialStatus.FAILED, step.name, error, worker, started)

    def check_place(self) -> None:
        """Raise StoreError when the study's directory is not held any more or has lost what all
        candidates need.
        """
        self.held()
        if self.baseline is None:
            return
        file = self.directory / self.baseline.artifact
        if self.baseline.artifact and not file.exists():
            raise StoreError(
                f"{file} is gone: no candidate can be compared with the untouched model",
                hint="put the file back and continue, or start a new study in another directory",
            )

    def check_writable(self) -> None:
        """Raise StoreError when the directory cannot take a megabyte: then the disk failed, not the
        candidate.
        """
        self.check_place()
        try:
            with tempfile.TemporaryFile(dir=self.directory / "artifacts") as file:
                file.write(bytes(1 << 20))
        except OSError as error:
            raise StoreError(
                f"{self.directory / 'artifacts'}: cannot write here: {error.strerror}",
                hint=(
                    "free space on the disk or make the directory writable, and continue; finished"
                    " trials are safe"
                ),
            ) from error

    def _measure(self, built: Built, place: Path, number: int) -> dict[str, Measurement]:
        main_file = built.files[0]
        baseline = main_file if number == 0 else str(self.directory / self._baseline().artifact)
        data = self.directory / "data" / "val"
        return self._bench(self._request(main_file, baseline, data, place / "predictions.npz"))

    def _bench(self, request: Request) -> dict[str, Measurement]:
        return run_bench(
            request, time_limit_s=self.limits.time_s, memory_limit_mb=self.limits.memory_mb
        )

    def _request(
        self, artifact: str, baseline: str, data: Path, predictions: Path, *, confirm: bool = False
    ) -> Request:
        return Request(
            runtime=self.target.runtime,
            artifact=artifact,
            data=str(data),
            baseline=baseline,
            predictions=str(predictions),
            threads=self.target.threads,
            batch=self.target.batch,
            throughput_batch=self.target.throughput_batch,
            confirm=confirm,
            host=self.host,
        )

    def _counted(self, built: Built, judged: Judged) -> dict[str, Measurement]:
        """What is not timed."""
        counted = {
            "size_bytes": (built.size_bytes, "B"),
            "params": (built.params, ""),
            "macs": (built.macs, ""),
        }
        metrics = {
            name: Measurement(float(value), 0.0, 1, unit, self.host)
            for name, (value, unit) in counted.items()
        }
        metrics |= {name: replace(m, host=self.host) for name, m in built.counted.items()}
        metrics |= judged.on(self.host)
        metrics["train_s"] = Measurement(built.train_s, 0.0, 1, "s", self.host)
        return metrics

    def _finished(
        self,
        proposal: Proposal,
        built: Built,
        metrics: dict[str, Measurement],
        judged: Judged,
        seconds: float,
    ) -> Trial:
        baseline = self.baseline.metrics if self.baseline else metrics
        feasible = violation(self.constraints, metrics, baseline) == 0 or proposal.number == 0
        return Trial(
            number=proposal.number,
            pipeline=proposal.pipeline,
            status=TrialStatus.COMPLETE if feasible else TrialStatus.INFEASIBLE,
            origin=proposal.origin,
            metrics=metrics,
            trace=built.trace,
            artifact=str(Path(built.files[0]).relative_to(self.directory)),
            parity=judged.parity,
            seconds=seconds,
        )

    def _baseline(self) -> Trial:
        if self.baseline is None:
            raise ValueError("trial 0 must be evaluated before any other")
        return self.baseline

    def _clear(self, place: Path) -> None:
        """Remove what a candidate left, if this is still our directory."""
        self.held()
        shutil.rmtree(place, ignore_errors=True)

    def _failed(
        self,
        proposal: Proposal,
        status: TrialStatus,
        stage: str,
        error: Exception,
        worker: Worker,
        started: float,
    ) -> Trial:
        """The trial of a candidate that failed. Raises StoreError when the fault is the
        directory's.
        """
        self._clear(self.artifact_dir(proposal.number))
        self.check_writable()
        kind = str(getattr(error, "kind", type(error).__name__))
        peak = getattr(error, "peak_memory_mb", worker.peak_memory_mb)
        return Trial(
            number=proposal.number,
            pipeline=proposal.pipeline,
            status=status,
            origin=proposal.origin,
            failure=Failure(stage, kind, str(error), peak),
            seconds=time.perf_counter() - started,
        )

    def measure_again(self, trial: Trial, worker: Worker) -> dict[str, Measurement]:
        """Confirm a member of the front: its quality on the test split, which has been written, and
        its speed, measured longer.
        """
        self.check_place()
        data = self.directory / "data" / "test"
        predictions = data.parent / f"predictions-{trial.number}.npz"
        baseline = str(self.directory / self._baseline().artifact)
        try:
            request = self._request(
                str(self.directory / trial.artifact), baseline, data, predictions, confirm=True
            )
            metrics = self._bench(request)
            run = _Call(worker, self.limits.time_s, self.limits.memory_mb, lambda note: None)
            judged: Judged = run(
                judge, predictions, targets_file(data.parent, "test"), None, False, 0
            )
        finally:
            predictions.unlink(missing_ok=True)
        return metrics | judged.on(self.host)


@dataclass(frozen=True)
class _Call:
    """Calls of one candidate's, under its limits."""

    worker: Worker
    time_limit_s: float
    memory_limit_mb: float
    on_note: Callable[[object], None]

    def __call__(self, function: Callable[..., Any], *args: object) -> Any:
        return self.worker.call(
            function,
            *args,
            time_limit_s=self.time_limit_s,
            memory_limit_mb=self.memory_limit_mb,
            on_note=self.on_note,
        )


class _Step:
    """Remembers the stage a worker was in, for the failure's record."""

    def __init__(self) -> None:
        self.name = "start"

    def see(self, note: object) -> None:
        if isinstance(note, tuple) and note and note[0] == "stage":
            self.name = str(note[2])
