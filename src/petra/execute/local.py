"""Running candidates on this machine: one warm worker process per slot, measurements one at a
time.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from petra.core.measurement import Measurement
from petra.core.rivals import Rivals
from petra.core.trial import Proposal, Trial
from petra.execute.base import Assignment, Executor, OnNote, Remaining
from petra.execute.build import prepare
from petra.execute.evaluate import BudgetExhausted, Evaluator
from petra.workers.isolate import Worker, WorkerDied


class LocalExecutor(Executor):
    """`workers` processes build candidates side by side; whenever one is measured, the others are
    suspended.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._evaluator = Evaluator(assignment)
        self._workers = [
            Worker(assignment.paths.log(slot), threads=assignment.threads)
            for slot in range(assignment.workers)
        ]
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._measuring = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=assignment.workers, thread_name_prefix="petra")
        self._pending: set[Future[Trial]] = set()
        try:
            for worker in self._workers:
                worker.start(assignment.payload, prepare)
                self._idle.put(worker)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for worker in self._workers:
            worker.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def baseline(self, proposal: Proposal, *, on_note: OnNote) -> tuple[Trial, Mapping[str, Any]]:
        self._evaluator.write("val", self._workers[0])
        trial = self._one(proposal, None, lambda: None, on_note)
        return trial, self._evaluator.facts(self._workers[0]) if trial.measured else {}

    def use_baseline(self, baseline: Trial) -> None:
        self._evaluator.baseline = baseline
        self._evaluator.check_place()

    def submit(
        self, proposal: Proposal, *, rivals: Rivals, remaining: Remaining, on_note: OnNote
    ) -> None:
        self._evaluator.accept(proposal, self._workers[0])
        self._pending.add(self._pool.submit(self._one, proposal, rivals, remaining, on_note))

    def results(self) -> Iterator[Trial]:
        while self._pending:
            done, self._pending = wait(self._pending, timeout=0.5, return_when=FIRST_COMPLETED)
            self._assignment.held()
            for future in done:
                try:
                    trial = future.result()
                except BudgetExhausted:
                    continue
                yield trial

    def _one(
        self, proposal: Proposal, rivals: Rivals | None, remaining: Remaining, on_note: OnNote
    ) -> Trial:
        worker = self._idle.get()
        try:
            left = remaining()
            if left is not None and left <= 0:
                raise BudgetExhausted
            return self._evaluator.evaluate(
                proposal,
                worker,
                rivals=rivals,
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
        self._evaluator.write("test", self._workers[0])
        return self._evaluator.confirm(trial, self._workers[0])

    def time_again(self, trial: Trial) -> dict[str, Measurement]:
        self._evaluator.write("test", self._workers[0])
        return self._evaluator.time_again(trial, self._workers[0])

    def difference(self, ours: Trial, theirs: Trial) -> Measurement:
        self._evaluator.write("test", self._workers[0])
        return self._evaluator.difference(ours, theirs, self._workers[0])

    def repeat(self, trial: Trial, seed: int) -> dict[str, Measurement]:
        self._evaluator.write("test", self._workers[0])
        return self._evaluator.repeat(trial, seed, self._workers[0])
