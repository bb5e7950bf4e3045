"""Running a generation of candidates on this machine: one worker process per slot, measurements one at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager

from petra.core.trial import Proposal, Trial
from petra.execute.build import BuildPayload
from petra.execute.evaluate import BudgetExhausted, Evaluator, paused
from petra.execute.isolate import Worker

Remaining = Callable[[], float | None]
OnNote = Callable[[Proposal, object], None]


class LocalExecutor:
    """`workers` warm processes build candidates side by side; whenever one is measured, the others are suspended.

    Use as a context manager; leaving it kills the workers.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        payload: BuildPayload,
        *,
        workers: int,
        build_threads: int,
    ) -> None:
        self.evaluator = evaluator
        log = payload.directory / "logs"
        log.mkdir(exist_ok=True)
        self._workers = [Worker(log / f"worker-{i}.log", threads=build_threads) for i in range(workers)]
        for worker in self._workers:
            worker.start(payload)
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._measuring = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="petra")
        evaluator.exclusive = self._exclusive

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers:
            worker.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def first(self) -> Worker:
        """A worker for the work that precedes the search."""
        return self._workers[0]

    def _exclusive(self, worker: Worker) -> AbstractContextManager[None]:
        @contextmanager
        def alone() -> Iterator[None]:
            with self._measuring, paused([w for w in self._workers if w is not worker]):
                yield

        return alone()

    def run(self, proposals: Sequence[Proposal], *, remaining: Remaining, on_note: OnNote) -> Iterator[Trial]:
        """Yield trials as they finish, in any order. Stops starting new ones when the time is up, and then returns
        without those that did not finish."""

        def one(proposal: Proposal) -> Trial:
            worker = self._idle.get()
            try:
                left = remaining()
                if left is not None and left <= 0:
                    raise BudgetExhausted
                return self.evaluator.evaluate(
                    proposal, worker, remaining_s=left, on_note=lambda note: on_note(proposal, note)
                )
            finally:
                self._idle.put(worker)

        pending: set[Future[Trial]] = {self._pool.submit(one, p) for p in proposals}
        while pending:
            done, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                try:
                    yield future.result()
                except BudgetExhausted:
                    continue
