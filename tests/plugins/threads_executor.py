"""An executor that builds in threads of this process: no workers to start, and a debugger stops in
a stage. It does without what processes are for: limits, and a fresh memory for every candidate.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from petra.core.measurement import Measurement
from petra.core.rivals import Rivals
from petra.core.trial import Proposal, Trial
from petra.execute.base import Assignment, Executor, OnNote, Remaining
from petra.execute.build import BuildPayload, prepare
from petra.execute.evaluate import BudgetExhausted, Evaluator

R = TypeVar("R")


class Here:
    """Calls in this process. One at a time: the generators of random numbers are everybody's."""

    closed = False
    peak_memory_mb = 0.0

    def __init__(self, payload: BuildPayload) -> None:
        self._payload = prepare(payload)
        self._turn = threading.RLock()

    def call(
        self,
        function: Callable[..., R],
        *args: object,
        time_limit_s: float | None = None,
        memory_limit_mb: float | None = None,
        on_note: Callable[[object], None] | None = None,
    ) -> R:
        with self._turn:
            return function(self._payload, on_note or (lambda note: None), *args)

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._turn:
            yield


class ThreadsExecutor(Executor):
    def __init__(self, assignment: Assignment) -> None:
        self._evaluator = Evaluator(assignment)
        self._here = Here(assignment.payload)
        self._pool = ThreadPoolExecutor(assignment.crew.workers(1))
        self._pending: set[Future[Trial | None]] = set()

    def baseline(self, proposal: Proposal, *, on_note: OnNote) -> tuple[Trial, Mapping[str, Any]]:
        self._evaluator.write("val", self._here)
        trial = self._one(proposal, None, lambda: None, on_note)
        assert trial is not None
        return trial, self._evaluator.facts(self._here) if trial.measured else {}

    def use_baseline(self, baseline: Trial) -> None:
        self._evaluator.baseline = baseline

    def submit(
        self, proposal: Proposal, *, rivals: Rivals, remaining: Remaining, on_note: OnNote
    ) -> None:
        self._evaluator.accept(proposal, self._here)
        self._pending.add(self._pool.submit(self._one, proposal, rivals, remaining, on_note))

    def results(self) -> Iterator[Trial]:
        while self._pending:
            done, self._pending = wait(self._pending, return_when=FIRST_COMPLETED)
            for future in done:
                if (trial := future.result()) is not None:
                    yield trial

    def _one(
        self, proposal: Proposal, rivals: Rivals | None, remaining: Remaining, on_note: OnNote
    ) -> Trial | None:
        left = remaining()
        if left is not None and left <= 0:
            return None
        try:
            return self._evaluator.evaluate(
                proposal,
                self._here,
                rivals=rivals,
                remaining_s=left,
                on_note=lambda note: on_note(proposal, note),
                alone=self._here.alone,
            )
        except BudgetExhausted:
            return None

    def confirm(self, trial: Trial) -> dict[str, Measurement]:
        self._evaluator.write("test", self._here)
        return self._evaluator.confirm(trial, self._here)

    def time_again(self, trial: Trial) -> dict[str, Measurement]:
        self._evaluator.write("test", self._here)
        return self._evaluator.time_again(trial, self._here)

    def difference(self, ours: Trial, theirs: Trial) -> Measurement:
        self._evaluator.write("test", self._here)
        return self._evaluator.difference(ours, theirs, self._here)

    def repeat(self, trial: Trial, seed: int) -> dict[str, Measurement]:
        self._evaluator.write("test", self._here)
        return self._evaluator.repeat(trial, seed, self._here)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
