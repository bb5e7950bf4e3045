"""petra's own executor against the suite that any executor must pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from petra.core.pipeline import Pipeline, StageSpec
from petra.core.rivals import Rivals
from petra.core.trial import FULL, Fidelity, Proposal, Trial, TrialStatus
from petra.execute.base import Assignment, Executor
from petra.execute.local import LocalExecutor
from petra.testing.executor_suite import ExecutorSuite, small_assignment


@pytest.mark.slow  # what else it promises is tested on whole studies
class TestLocalExecutor(ExecutorSuite):
    def make(self, assignment: Assignment) -> Executor:
        return LocalExecutor(assignment)


@pytest.mark.slow
def test_a_promotion_goes_on_where_the_lower_rung_was_stopped(tmp_path: Path) -> None:
    """Through real worker processes, a new one for the promotion: the same weights as in one go,
    and the trials say at which fidelity they were.
    """
    train = StageSpec("tune", {"epochs": 3, "batch_size": 32, "lr": 1e-3})
    pipeline = Pipeline((train, StageSpec("quantize.dynamic")))
    plain = small_assignment(tmp_path / "study")
    plain.paths.root.mkdir()
    payload = replace(plain.payload, cache=tmp_path / "cache", cache_bytes=10**8)
    assignment = replace(
        plain,
        payload=payload,
    )
    baseline: Trial | None = None
    found = []
    for number, fidelity in ((1, Fidelity(epochs=0.4)), (2, FULL)):
        with LocalExecutor(assignment) as executor:
            if baseline is None:
                baseline, _ = executor.baseline(Proposal(0, Pipeline()), on_note=lambda p, n: None)
            executor.use_baseline(baseline)
            rivals = Rivals((), (), baseline.metrics)
            proposal = Proposal(number, pipeline, fidelity=fidelity)
            executor.submit(
                proposal, rivals=rivals, remaining=lambda: None, on_note=lambda p, n: None
            )
            found += list(executor.results())
    assert [(t.status, t.fidelity) for t in found] == [
        (TrialStatus.COMPLETE, Fidelity(epochs=0.4)),
        (TrialStatus.COMPLETE, FULL),
    ]
    steps = [(t.trace[0].details["continued"], t.trace[0].details["steps"]) for t in found]
    assert steps == [(0, 5), (5, 12)]
    assert [t.comparable for t in found] == [False, True]
