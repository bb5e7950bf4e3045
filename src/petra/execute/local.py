"""Running candidates on this machine: one warm worker process per slot, measurements one at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import numpy as np

from petra.core.measurement import Measurement
from petra.core.trial import Proposal, Trial
from petra.execute.base import Executor, OnNote, Remaining
from petra.execute.build import BuildPayload, eager_latency_ms
from petra.execute.evaluate import BudgetExhausted, Evaluator, Limits
from petra.measure.client import write_split
from petra.workers.isolate import Worker, WorkerDied


class LocalExecutor(Executor):
    """`workers` processes build candidates side by side; whenever one is measured, the others are suspended."""

    def __init__(
        self,
        payload: BuildPayload,
        *,
        limits: Limits,
        constraints: Sequence[Any],
        host: str,
        workers: int,
        threads: int,
    ) -> None:
        self._payload = payload
        self.evaluator = Evaluator(
            directory=payload.directory,
            task=payload.task,
            target=payload.target,
            targets=write_split(payload.task.val, payload.directory / "data" / "val"),
            limits=limits,
            host=host,
            constraints=tuple(constraints),
        )
        logs = payload.directory / "logs"
        logs.mkdir(exist_ok=True)
        self._workers = [Worker(logs / f"worker-{i}.log", threads=threads) for i in range(workers)]
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self._workers:
            worker.start(payload)
            self._idle.put(worker)
        self._measuring = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="petra")
        self._test_targets: np.ndarray | None = None

    def close(self) -> None:
        for worker in self._workers:
            worker.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def baseline(self, proposal: Proposal, *, on_note: OnNote) -> tuple[Trial, Mapping[str, Any]]:
        trial = self._one(proposal, lambda: None, on_note)
        if not trial.measured:
            return trial, {}
        target = self._payload.target
        eager = self._workers[0].call(
            eager_latency_ms, target.batch, target.threads, memory_limit_mb=self.evaluator.limits.memory_mb
        )
        return trial, {"eager_latency_ms": eager}

    def use_baseline(self, baseline: Trial) -> None:
        self.evaluator.baseline = baseline

    def run(self, proposals: Sequence[Proposal], *, remaining: Remaining, on_note: OnNote) -> Iterator[Trial]:
        pending: set[Future[Trial]] = {self._pool.submit(self._one, p, remaining, on_note) for p in proposals}
        while pending:
            done, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                try:
                    yield future.result()
                except BudgetExhausted:
                    continue

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
        data = self._payload.directory / "data" / "test"
        if self._test_targets is None:
            self._test_targets = write_split(self._payload.task.test, data)
        return self.evaluator.measure_again(trial, data, self._test_targets)
