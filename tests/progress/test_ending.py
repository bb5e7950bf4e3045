"""What is said when a study has ended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import Failure, Trial, TrialStatus
from petra.front import Front
from petra.progress.ending import ending, verdict
from petra.report.study_front import StudyFront
from petra.testing.studies import toy_study


def test_the_end_names_what_can_be_picked(tmp_path: Path) -> None:
    lines = list(ending(toy_study(tmp_path, trials=20)))
    front = StudyFront.load(tmp_path)
    assert lines[0] == f"front: {len(front.members)} models, confirmed on the test split"
    knee = front.choose("knee")
    line = next(line for line in lines if "knee" in line.partition(":")[0])
    assert f"trial {knee.number}, accuracy (test) {knee.test['quality'].mean:.3f}" in line
    assert "pick('knee').export" in lines[-1]
    assert not any("beats" in line for line in lines)


def untouched_alone(directory: Path, *others: Trial) -> Front:
    front = StudyFront.load(toy_study(directory, trials=0))
    assert front.baseline is not None
    slow = replace(front.baseline, seconds=324.0)
    return Front.of([slow, *others], front.objectives, front.constraints)


def test_after_no_trial_nothing_is_claimed_about_trials(tmp_path: Path) -> None:
    said = verdict(untouched_alone(tmp_path))
    assert said.startswith("No trial has finished: the untouched model alone took 5 min 24 s")
    assert "more time" in said
    (line,) = [line for line in ending(tmp_path) if "beats" in line or "No trial" in line]
    assert line.startswith("No trial has finished")


def test_after_trials_that_beat_nothing_that_is_said(tmp_path: Path) -> None:
    failure = Failure("prune", "StageRefused", "no")
    tried = Pipeline((StageSpec("tune"),))
    failed = Trial(1, tried, TrialStatus.FAILED, failure=failure)
    said = verdict(untouched_alone(tmp_path, failed))
    assert said.startswith("Nothing that was tried beats the untouched model")


def test_an_empty_front_says_which_constraint_binds(tmp_path: Path) -> None:
    lines = list(ending(toy_study(tmp_path, trials=12, constraints=("size <= 1 kB",))))
    assert lines[0].startswith("The front is empty: none of 12 trials is feasible: ")
    assert "size_bytes <= 1000 binds" in lines[0]
    assert len(lines) == 1
