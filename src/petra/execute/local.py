"""Running candidates on this machine: one warm worker process per slot, measurements one at a
time.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from petra.core.errors import DataError, PetraError, StoreError
from petra.core.measurement import Measurement
from petra.core.trial import Proposal, Trial
from petra.execute.base import Executor, OnNote, Remaining
from petra.execute.build import BuildPayload, eager_latency_ms, prepare
from petra.execute.evaluate import BudgetExhausted, Evaluator, Limits
from petra.execute.judge import write_data
from petra.workers.isolate import Worker, WorkerDied, WorkerError


class LocalExecutor(Executor):
    """`workers` processes build candidates side by side; whenever one is measured, the others are
    suspended.
    """

    def __init__(
        self,
        payload: BuildPayload,
        *,
        limits: Limits,
        constraints: Sequence[Any],
        host: str,
        workers: int,
        threads: int,
        held: Callable[[], None] = lambda: None,
    ) -> None:
        """`held` raises StoreError when another process has taken the directory; it is asked before
        anything there is removed, and twice a second.
        """
        self._payload = payload
        self.evaluator = Evaluator(
            directory=payload.directory,
            target=payload.target,
            limits=limits,
            host=host,
            constraints=tuple(constraints),
            held=held,
        )
        _make_places(payload.directory)
        logs = payload.directory / "logs"
        self._workers = [Worker(logs / f"worker-{i}.log", threads=threads) for i in range(workers)]
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._measuring = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="petra")
        self._unreadable: PetraError | None = None
        self._written: set[str] = set()
        self._pending: set[Future[Trial]] = set()
        try:
            for worker in self._workers:
                worker.start(payload, prepare)
                self._idle.put(worker)
        except BaseException:
            self.close()
            raise

    def _write(self, split: str) -> None:
        """Write a split's inputs and targets, once. Raises what reading them raises, every time."""
        if self._unreadable:
            raise self._unreadable
        if split not in self._written:
            try:
                self._workers[0].call(write_data, split, self._payload.directory / "data")
            except PetraError as error:
                self.evaluator.check_writable()
                said = "" if isinstance(error, DataError) else f"{split} split: reading it failed: "
                self._unreadable = DataError(f"{said}{error.message}", hint=error.hint)
                raise self._unreadable from error
            self._written.add(split)

    def close(self) -> None:
        for worker in self._workers:
            worker.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def baseline(self, proposal: Proposal, *, on_note: OnNote) -> tuple[Trial, Mapping[str, Any]]:
        self._write("val")
        trial = self._one(proposal, lambda: None, on_note)
        if not trial.measured:
            return trial, {}
        target, limits = self._payload.target, self.evaluator.limits
        try:
            eager = self._workers[0].call(
                eager_latency_ms,
                target.batch,
                target.threads,
                time_limit_s=limits.time_s,
                memory_limit_mb=limits.memory_mb,
            )
        except WorkerError:
            return trial, {}  # it is there for orientation only
        return trial, {"eager_latency_ms": eager} if math.isfinite(eager) else {}

    def use_baseline(self, baseline: Trial) -> None:
        self.evaluator.baseline = baseline
        self.evaluator.check_place()

    def submit(self, proposal: Proposal, *, remaining: Remaining, on_note: OnNote) -> None:
        if not proposal.fidelity.full:
            raise PetraError(
                f"proposal {proposal.number}: this executor evaluates at full fidelity only",
                hint="use a searcher that asks for nothing else",
            )
        self._write("val")
        self._pending.add(self._pool.submit(self._one, proposal, remaining, on_note))

    def results(self) -> Iterator[Trial]:
        while self._pending:
            done, self._pending = wait(self._pending, timeout=0.5, return_when=FIRST_COMPLETED)
            self.evaluator.held()
            for future in done:
                try:
                    trial = future.result()
                except BudgetExhausted:
                    continue
                yield trial

    def _one(self, proposal: Proposal, remaining: Remaining, on_note: OnNote) -> Trial:
        worker = self._idle.get()
        try:
            left = remaining()
            if left is not None and left <= 0:
                raise BudgetExhausted
            return self.evaluator.evaluate(
                proposal,
                worker,
                remaining_s=left,
                on_note=lambda note: on_note(proposal, note),
                alone=lambda: self._alone(worker),
            )
        except WorkerDied:
            raise BudgetExhausted from None  # `close` killed it: no fault of the candidate's
        finally:
            self._idle.put(worker)

    @contextmanager
    def _alone(self, worker: Worker) -> Iterator[None]:
        """Nothing else of ours runs: one measurement at a time, the other workers stopped."""
        others = [w for w in self._workers if w is not worker]
        with self._measuring:
            for other in others:
                other.suspend()
            try:
                yield
            finally:
                for other in others:
                    other.resume()

    def confirm(self, trial: Trial) -> dict[str, Measurement]:
        self._write("test")
        return self.evaluator.measure_again(trial, self._workers[0])


def _make_places(directory: Path) -> None:
    for name in ("artifacts", "logs"):
        try:
            (directory / name).mkdir(exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{directory / name}: cannot be made: {error.strerror}",
                hint="free space on the disk, or make the directory writable",
            ) from error
