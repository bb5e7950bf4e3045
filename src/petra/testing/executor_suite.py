"""What every executor promises, as pytest tests on a small real problem.

Needs the packages of the ``dev`` extra.

For example::

    class TestMine(ExecutorSuite):
        def make(self, assignment):
            return MyExecutor(assignment)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from petra.core.measurement import Measurement
from petra.core.metric import CHANGE, METRICS, QUALITY
from petra.core.notes import StepBegan, WorkerNote
from petra.core.objective import Constraint, named_objectives
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.rivals import Rivals
from petra.core.target import Target
from petra.core.trial import Proposal, Trial, TrialStatus
from petra.execute.apply import apply_pipeline
from petra.execute.base import Assignment, Executor, Limits
from petra.execute.build import BuildPayload, context_of
from petra.measure.launches import LEAST
from petra.methods.table import STAGES
from petra.store.layout import StudyPaths
from petra.testing.stage_suite import small_problem

CUT = Pipeline((STAGES.get("prune.structured").card().normalize({"ratio": 0.5}),))
OBJECTIVES = named_objectives(("quality", "latency_ratio", "size_bytes"))
REFUSED = Pipeline((StageSpec("prune.heads"),))  # there are no heads in a convolutional network


def small_assignment(directory: Path, *constraints: str) -> Assignment:
    """A small image classifier, and a study's directory for what comes of it."""
    model, task = small_problem()
    paths = StudyPaths(directory)
    return Assignment(
        BuildPayload(model, task, Target(), 0, paths.data, stages=tuple(STAGES.names())),
        paths,
        Limits(time_s=120.0, memory_mb=8192.0),
        constraints=tuple(Constraint.parse(text) for text in constraints),
        host="here",
    )


@dataclass(frozen=True)
class Ran:
    """What an executor made of the untouched model and two proposals."""

    assignment: Assignment
    baseline: Trial
    facts: Mapping[str, Any]
    trials: Mapping[int, Trial]
    late: list[Trial]
    confirmed: Mapping[str, Measurement]
    timed_again: Mapping[str, Measurement]
    difference: Measurement  # of trial 1 and the untouched model
    again: Sequence[
        Mapping[str, Measurement]
    ]  # trial 1 with the study's own seed, and with another
    splits: list[bool]  # whether the test split was there before and after confirming
    notes: list[tuple[int, WorkerNote]]


class ExecutorSuite(ABC):
    """Conformance tests of one executor. One run of three measurements serves all of them."""

    @abstractmethod
    def make(self, assignment: Assignment) -> Executor: ...

    @pytest.fixture(scope="class")
    @classmethod
    def ran(cls, tmp_path_factory: pytest.TempPathFactory) -> Ran:
        place = tmp_path_factory.mktemp("study")
        assignment = small_assignment(place, "size <= 0.01 * baseline")
        notes: list[tuple[int, WorkerNote]] = []

        def hear(proposal: Proposal, note: WorkerNote) -> None:
            notes.append((proposal.number, note))

        with cls().make(assignment) as executor:
            baseline, facts = executor.baseline(Proposal(0, Pipeline()), on_note=hear)
            executor.use_baseline(baseline)
            rivals = Rivals(OBJECTIVES, assignment.constraints, baseline.metrics)
            for proposal in (Proposal(1, CUT), Proposal(2, REFUSED)):
                executor.submit(proposal, rivals=rivals, remaining=lambda: None, on_note=hear)
            found = list(executor.results())
            executor.submit(Proposal(3, CUT), rivals=rivals, remaining=lambda: 0.0, on_note=hear)
            late = list(executor.results())
            trials = {trial.number: trial for trial in found}
            splits = [(assignment.paths.data / "test").exists()]
            confirmed, timed_again = executor.confirm(trials[1]), executor.time_again(trials[1])
            splits.append((assignment.paths.data / "test").exists())
            difference = executor.difference(trials[1], baseline)
            again = [executor.repeat(trials[1], seed) for seed in (assignment.payload.seed, 1)]
        assert len(found) == len(trials), "a trial came twice"
        return Ran(
            assignment, baseline, facts, trials, late, confirmed, timed_again, difference, again,
            splits, notes,
        )  # fmt: skip

    def test_the_untouched_model_is_a_complete_trial(self, ran: Ran) -> None:
        assert ran.baseline.number == 0
        assert ran.baseline.status is TrialStatus.COMPLETE, ran.baseline.failure
        assert set(ran.baseline.metrics) == {m.name for _, m in METRICS.items() if not m.ragged}
        assert {m.host for m in ran.baseline.metrics.values()} == {"here"}
        assert ran.baseline.parity["relative_error"] < 1e-3
        assert all(isinstance(name, str) for name in ran.facts)

    def test_every_proposal_becomes_one_trial(self, ran: Ran) -> None:
        assert {n: t.pipeline for n, t in ran.trials.items()} == {1: CUT, 2: REFUSED}

    def test_a_refusal_is_a_failed_trial_with_its_reason(self, ran: Ran) -> None:
        trial = ran.trials[2]
        assert trial.status is TrialStatus.FAILED
        assert trial.failure is not None
        assert (trial.failure.stage, trial.failure.kind) == ("prune.heads", "StageRefused")
        assert trial.artifact == ""
        assert not ran.assignment.paths.artifact(2).exists()

    def test_a_trial_outside_a_constraint_is_infeasible(self, ran: Ran) -> None:
        assert ran.trials[1].status is TrialStatus.INFEASIBLE, ran.trials[1].failure
        known = {m.name for _, m in METRICS.items() if not m.ragged and not m.on_demand}
        assert set(ran.trials[1].metrics) == known | {QUALITY + CHANGE}

    def test_stated_errors_know_that_launches_differ(self, ran: Ran) -> None:
        for trial in (ran.baseline, ran.trials[1]):
            ratio = trial.metrics["latency_ratio"]
            assert ratio.stderr > 0.99 * LEAST * ratio.mean

    def test_what_is_measured_on_demand_is_there_when_it_is_confirmed(self, ran: Ran) -> None:
        for found in (ran.confirmed, ran.timed_again):
            assert {"latency_ratio", "throughput", "memory_mb"} <= set(found)
        assert "quality" not in ran.timed_again, "the test split is read once"

    def test_files_lie_where_the_study_keeps_them(self, ran: Ran) -> None:
        paths = ran.assignment.paths
        for trial in (ran.baseline, ran.trials[1]):
            file = paths.root / trial.artifact
            assert file.parent == paths.artifact(trial.number)
            assert list(file.parent.iterdir()) == [file], "only what ships stays"
            assert file.stat().st_size == trial.metrics["size_bytes"].mean

    def test_it_builds_what_the_stages_make(self, ran: Ran) -> None:
        payload = ran.assignment.payload
        model, traces = apply_pipeline(
            payload.model,
            CUT,
            lambda prefix: context_of(payload, lambda note: None, prefix),
            cache=None,
            on_stage=lambda index, spec: None,
        )
        trial, val = ran.trials[1], payload.task.val
        assert [t.touched for t in trial.trace] == [t.touched for t in traces]
        assert trial.metrics["params"].mean == sum(p.numel() for p in model.parameters())
        with torch.no_grad():
            batches = [(model.eval()(x), y) for x, y in val.batches(64)]
        score = payload.task.score(
            torch.cat([out for out, _ in batches]), torch.cat([y for _, y in batches])
        )
        assert trial.metrics["quality"].mean == pytest.approx(score.mean, abs=1.5 / score.n)

    def test_steps_are_told_in_their_order(self, ran: Ran) -> None:
        told = [n for number, n in ran.notes if number == 1 and isinstance(n, StepBegan)]
        assert [n.name for n in told] == [
            *("prune.structured", "export", "measure", "compare"),
            *(n.name for n in told[4:]),
        ]
        assert {n.name for n in told[4:]} == {"score"}
        assert [n.index for n in told[:3]] == [0, 1, 2]

    def test_without_time_nothing_is_begun(self, ran: Ran) -> None:
        assert ran.late == []
        assert not ran.assignment.paths.artifact(3).exists()

    def test_the_test_split_is_read_for_confirmation_alone(self, ran: Ran) -> None:
        assert ran.splits == [False, True]
        assert {"quality", "latency_ratio"} <= set(ran.confirmed)

    def test_quality_is_paired_with_the_untouched_models_item_by_item(self, ran: Ran) -> None:
        before = ran.baseline.metrics[QUALITY]
        mine, change = ran.trials[1].metrics[QUALITY], ran.trials[1].metrics[QUALITY + CHANGE]
        assert change.mean == pytest.approx(mine.mean - before.mean, abs=1e-9)
        assert ran.confirmed[QUALITY + CHANGE].n == ran.confirmed[QUALITY].n
        assert ran.difference.mean == pytest.approx(ran.confirmed[QUALITY + CHANGE].mean)

    def test_a_repeat_differs_by_its_seed_alone(self, ran: Ran) -> None:
        same, other = ran.again
        assert same[QUALITY].mean == ran.confirmed[QUALITY].mean
        assert same["size_bytes"].mean == ran.trials[1].metrics["size_bytes"].mean
        assert QUALITY in other
        left = [p.name for p in ran.assignment.paths.artifacts.iterdir()]
        assert sorted(left) == ["00000", "00001"], "a repeat leaves no files"
