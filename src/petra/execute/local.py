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
from petra.execute.training_speed import SPEED_NOTE, TrainingSpeed, try_training
from petra.workers.isolate import Worker, WorkerDied


class LocalExecutor(Executor):
    """As many processes as the crew has build candidates side by side; whenever one is measured,
    the others are suspended.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._evaluator = Evaluator(assignment)
        self._threads = assignment.threads
        self._workers: list[Worker] = []
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._measuring = threading.Lock()
        self._pool = ThreadPoolExecutor(1)
        self._pending: set[Future[Trial]] = set()
        self._grow(1)

    def _grow(self, workers: int) -> None:
        """As many workers, and threads that wait for them: no more, or later submissions could
        overtake earlier ones.
        """
        self._pool.shutdown()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="petra")
        try:
            for slot in range(len(self._workers), workers):
                log = self._assignment.paths.log(slot)
                self._workers.append(Worker(log, threads=self._threads or 1))
                self._workers[-1].start(self._assignment.payload, prepare)
                self._idle.put(self._workers[-1])
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for worker in self._workers:
            worker.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def baseline(self, proposal: Proposal, *, on_note: OnNote) -> tuple[Trial, Mapping[str, Any]]:
        self._evaluator.write("val", self._workers[0])
        speed = self._training_speed()
        trial = self._one(proposal, None, lambda: None, on_note)
        facts = self._evaluator.facts(self._workers[0]) if trial.measured else {}
        return trial, {SPEED_NOTE: speed.as_note(), **facts}

    def _training_speed(self) -> TrainingSpeed:
        """Tried while nothing else of ours runs, like the baseline."""
        crew = self._assignment.crew
        counts = (self._threads,) if self._threads else crew.counts()
        if self._assignment.payload.device != "cpu":
            counts = counts[-1:]
        speed = try_training(self._workers[0], counts, crew, self._assignment.limits)
        self._threads = self._workers[0].threads = speed.threads
        return speed

    def use_baseline(self, baseline: Trial) -> None:
        self._evaluator.baseline = baseline
        self._evaluator.check_place()
        self._grow(self._assignment.crew.workers(self._threads or 1))

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
