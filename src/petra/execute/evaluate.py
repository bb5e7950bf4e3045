"""One candidate from pipeline to trial: built in a worker, measured in a process of its own, judged here."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from petra.core.errors import PetraError
from petra.core.measurement import Measurement
from petra.core.objective import Constraint, violation
from petra.core.trial import Failure, Proposal, Trial, TrialStatus
from petra.execute.build import Built, build_candidate
from petra.measure.bench_main import Request
from petra.measure.client import run_bench
from petra.runtimes.base import Target
from petra.runtimes.verify import compare
from petra.tasks.base import Task
from petra.workers.isolate import TimeLimitExceeded, Worker, WorkerDied


class BudgetExhausted(Exception):
    """The study's time ran out while a candidate was being built; it is abandoned and not recorded."""


@dataclass(frozen=True)
class Limits:
    """What one trial may use."""

    time_s: float
    memory_mb: float


@dataclass
class Evaluator:
    """Judges candidates of one study. `targets` are the validation targets in the order the inputs were written."""

    directory: Path
    task: Task
    target: Target
    targets: np.ndarray
    limits: Limits
    host: str
    constraints: tuple[Constraint, ...] = ()
    baseline: Trial | None = None

    def artifact_dir(self, number: int) -> Path:
        return self.directory / "artifacts" / f"{number:05d}"

    def score(self, predictions: np.ndarray, targets: np.ndarray | None = None) -> Measurement:
        """The task's metric of predictions on (the first items of) the validation split, or on other targets."""
        against = self.targets[: len(predictions)] if targets is None else targets
        return self.task.score(torch.from_numpy(predictions).float(), torch.from_numpy(against))

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

        Every failure of the candidate becomes a Trial. Raises BudgetExhausted when `remaining_s` runs out, and
        WorkerDied when the worker was closed by its owner.
        """
        started = time.perf_counter()
        place = self.artifact_dir(proposal.number)
        shutil.rmtree(place, ignore_errors=True)  # left over from a session that was killed
        step = _Step()

        def watch(note: object) -> None:
            step.see(note)
            on_note(note)

        limit = self.limits.time_s if remaining_s is None else min(self.limits.time_s, max(remaining_s, 1.0))
        try:
            built = worker.call(
                build_candidate,
                proposal.pipeline,
                place,
                time_limit_s=limit,
                memory_limit_mb=self.limits.memory_mb,
                on_note=watch,
            )
            step.name = "measure"
            on_note(("stage", len(proposal.pipeline) + 1, "measure"))
            with alone():
                metrics, parity = self._measure(built, place, proposal.number)
        except TimeLimitExceeded as error:
            if limit < self.limits.time_s:
                shutil.rmtree(place, ignore_errors=True)
                raise BudgetExhausted from None
            return self._failed(proposal, TrialStatus.TIMED_OUT, step.name, error, worker, started, place)
        except PetraError as error:
            if isinstance(error, WorkerDied) and worker.closed:
                raise
            return self._failed(proposal, TrialStatus.FAILED, step.name, error, worker, started, place)
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
            parity=parity,
            seconds=time.perf_counter() - started,
        )

    def _measure(self, built: Built, place: Path, number: int) -> tuple[dict[str, Measurement], dict[str, float]]:
        predictions_path = place / "predictions.npy"
        main_file = built.files[0]
        baseline = main_file if number == 0 else str(self.directory / self._baseline().artifact)
        request = Request(
            runtime=self.target.runtime,
            artifact=main_file,
            data=str(self.directory / "data" / "val"),
            baseline=baseline,
            predictions=str(predictions_path),
            threads=self.target.threads,
            batch=self.target.batch,
            throughput_batch=self.target.throughput_batch,
            host=self.host,
        )
        metrics = run_bench(request, time_limit_s=self.limits.time_s, memory_limit_mb=self.limits.memory_mb)
        predictions = np.load(predictions_path, allow_pickle=False)
        reference = np.load(place / "reference.npy", allow_pickle=False)
        parity = compare(
            predictions[: len(reference)],
            reference,
            quantized=built.quantized,
            score=lambda p: self.score(p).mean,
        )
        predictions_path.unlink()
        (place / "reference.npy").unlink()
        quality = self.score(predictions)
        counted = {"size_bytes": (built.size_bytes, "B"), "params": (built.params, ""), "macs": (built.macs, "")}
        metrics |= {name: Measurement(float(value), 0.0, 1, unit, self.host) for name, (value, unit) in counted.items()}
        metrics["quality"] = Measurement(quality.mean, quality.stderr, quality.n, self.task.metric, self.host)
        metrics["train_s"] = Measurement(built.train_s, 0.0, 1, "s", self.host)
        return metrics, parity

    def _baseline(self) -> Trial:
        if self.baseline is None:
            raise ValueError("trial 0 must be evaluated before any other")
        return self.baseline

    def _failed(
        self,
        proposal: Proposal,
        status: TrialStatus,
        stage: str,
        error: Exception,
        worker: Worker,
        started: float,
        place: Path,
    ) -> Trial:
        shutil.rmtree(place, ignore_errors=True)
        kind = getattr(error, "kind", type(error).__name__)
        failure = Failure(stage, kind, str(error), getattr(error, "peak_memory_mb", worker.peak_memory_mb))
        return Trial(
            number=proposal.number,
            pipeline=proposal.pipeline,
            status=status,
            origin=proposal.origin,
            failure=failure,
            seconds=time.perf_counter() - started,
        )

    def measure_again(self, trial: Trial, data: Path, targets: np.ndarray) -> dict[str, Measurement]:
        """Confirm a member of the front: its quality on other data (the test split) and its speed, measured longer."""
        predictions = data.parent / f"predictions-{trial.number}.npy"
        request = Request(
            runtime=self.target.runtime,
            artifact=str(self.directory / trial.artifact),
            data=str(data),
            baseline=str(self.directory / self._baseline().artifact),
            predictions=str(predictions),
            threads=self.target.threads,
            batch=self.target.batch,
            throughput_batch=self.target.throughput_batch,
            confirm=True,
            host=self.host,
        )
        metrics = run_bench(request, time_limit_s=self.limits.time_s, memory_limit_mb=self.limits.memory_mb)
        quality = self.score(np.load(predictions, allow_pickle=False), targets)
        predictions.unlink()
        metrics["quality"] = Measurement(quality.mean, quality.stderr, quality.n, self.task.metric, self.host)
        return metrics


class _Step:
    """Remembers the stage a worker was in, for the failure's record."""

    def __init__(self) -> None:
        self.name = "start"

    def see(self, note: object) -> None:
        if isinstance(note, tuple) and note and note[0] == "stage":
            self.name = str(note[2])
