"""An executor that answers from recorded trials: the whole loop, store and resume without the
minutes of training.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

from petra.core.errors import PetraError
from petra.core.measurement import Measurement
from petra.core.metric import METRICS
from petra.core.pipeline import Pipeline
from petra.core.rivals import Rivals
from petra.core.rng import derive_seed
from petra.core.trial import Failure, Proposal, Trial, TrialStatus
from petra.execute.base import Assignment, Executor, OnNote, Remaining


def synthetic_trial(proposal: Proposal, *, seed: int = 0) -> Trial:
    """A made-up result that is a function of the pipeline alone; one in ten fails."""
    draw = random.Random(derive_seed(seed, "result", proposal.pipeline.key))
    if proposal.number and draw.random() < 0.1:
        failure = Failure(proposal.pipeline.stages[0].kind, "StageRefused", "made up")
        return proposal.ended(TrialStatus.FAILED, failure=failure)
    depth = len(proposal.pipeline)
    metrics = {
        "quality": Measurement(
            0.95 - 0.1 * depth * draw.random(), 0.01, 100, "accuracy", "made-up"
        ),
        "latency_ratio": Measurement((1 - 0.2 * draw.random()) ** depth, 0.001, 10, "x", "made-up"),
        "size_bytes": Measurement(
            round(1e6 * (1 - 0.4 * draw.random()) ** depth), 0.0, 1, "B", "made-up"
        ),
    }
    metrics |= {
        name: Measurement(1.0, unit=m.unit, host="made-up")
        for name, m in sorted(METRICS.items())
        if name not in metrics and not m.ragged
    }
    return proposal.ended(TrialStatus.COMPLETE, metrics=metrics)


class RecordedExecutor(Executor):
    """Gives each pipeline the result recorded for it in `trials`, or a synthetic one when `trials`
    is None.

    Runs what is submitted in a random order on `workers` threads, up to `delay_s` seconds each.
    What begins after the time is used up is left out.
    """

    def __init__(
        self,
        assignment: Assignment | None = None,
        *,
        trials: Mapping[Pipeline, Trial] | None = None,
        workers: int = 1,
        delay_s: float = 0.0,
    ) -> None:
        self._trials = trials
        self._delay_s = delay_s
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers)
        self._waiting: list[tuple[Proposal, Remaining]] = []
        self.evaluated: list[int] = []

    def _result(self, proposal: Proposal) -> Trial:
        time.sleep(random.uniform(0.0, self._delay_s))
        self.evaluated.append(proposal.number)
        if self._trials is None:
            return synthetic_trial(proposal)
        if proposal.pipeline not in self._trials:
            raise PetraError(f"no result is recorded for {proposal.pipeline}")
        return replace(
            self._trials[proposal.pipeline],
            number=proposal.number,
            origin=proposal.origin,
            fidelity=proposal.fidelity,
        )

    def baseline(self, proposal: Proposal, *, on_note: OnNote) -> tuple[Trial, Mapping[str, Any]]:
        return self._result(proposal), {}

    def use_baseline(self, baseline: Trial) -> None:
        """Recorded results are judged already."""

    def submit(
        self, proposal: Proposal, *, rivals: Rivals, remaining: Remaining, on_note: OnNote
    ) -> None:
        self._waiting.append((proposal, remaining))

    def results(self) -> Iterator[Trial]:
        running: set[Future[Trial]] = set()
        while self._waiting or running:
            while self._waiting and len(running) < self._workers:
                at = random.randrange(len(self._waiting))
                proposal, remaining = self._waiting.pop(at)
                left = remaining()
                if left is None or left > 0:
                    running.add(self._pool.submit(self._result, proposal))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()

    def confirm(self, trial: Trial) -> dict[str, Measurement]:
        return dict(trial.metrics)

    def time_again(self, trial: Trial) -> dict[str, Measurement]:
        return dict(trial.metrics)

    def difference(self, ours: Trial, theirs: Trial) -> Measurement:
        mine, other = ours.metrics["quality"], theirs.metrics["quality"]
        spread = (mine.stderr**2 + other.stderr**2) ** 0.5
        return Measurement(mine.mean - other.mean, spread, mine.n)

    def repeat(self, trial: Trial, seed: int) -> dict[str, Measurement]:
        found = trial.metrics["quality"]
        shift = random.Random(derive_seed(seed, trial.pipeline.key)).gauss(0, found.stderr)
        return {**trial.metrics, "quality": replace(found, mean=found.mean + shift)}

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
