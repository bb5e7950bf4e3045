"""The front is confirmed until it stays as it is, by launches apart in time, and what the search
had measured otherwise is said.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from petra.confirm import MOST_PASSES
from petra.core.errors import ArtifactError
from petra.core.measurement import Measurement
from petra.core.trial import Trial
from petra.front import figures
from petra.measure.launches import LAUNCHES
from petra.moo.dominance import dominates
from petra.report.plain import front_data
from petra.report.record import StudyRecord
from petra.report.study_front import StudyFront
from petra.testing.recorded import RecordedExecutor
from test_study import study

FEW = {"trials": 30}


class Slower(RecordedExecutor):
    """Measures in every later launch that trials are slower than in the search, by a factor; and
    remembers what it was asked.
    """

    def __init__(self, factors: Mapping[int, float], *, failing: int | None = None) -> None:
        super().__init__()
        self.factors, self.failing = factors, failing
        self.confirmed, self.timed = list[int](), list[int]()

    def _again(self, trial: Trial) -> dict[str, Measurement]:
        ratio = trial.metrics["latency_ratio"]
        factor = self.factors.get(trial.number, 1.0)
        slow = replace(ratio, mean=factor * ratio.mean, stderr=0.003)
        return {**trial.metrics, "latency_ratio": slow}

    def confirm(self, trial: Trial) -> dict[str, Measurement]:
        self.confirmed.append(trial.number)
        return self._again(trial)

    def time_again(self, trial: Trial) -> dict[str, Measurement]:
        self.timed.append(trial.number)
        if trial.number == self.failing:
            raise ArtifactError("the file is gone")
        return self._again(trial)


def numbers(directory: Path) -> list[int]:
    return [t.number for t in StudyFront.load(directory).members]


def test_launches_of_one_model_are_apart_in_time(tmp_path: Path) -> None:
    executor = Slower({})
    study(tmp_path, budget=FEW).run(executor=lambda _: executor)
    everybody = executor.confirmed
    assert set(everybody) == {0, *numbers(tmp_path)}
    assert executor.timed == (LAUNCHES - 1) * everybody
    record = StudyRecord.load(tmp_path)
    assert record.measured_again == {}
    for number in everybody:
        test = record.trials[number].test["latency_ratio"]
        assert test.n == LAUNCHES * record.trials[number].metrics["latency_ratio"].n
        assert test.stderr > 0.005, "launches may differ by more than these do"


def test_confirmed_costs_decide_and_what_they_uncover_is_confirmed(tmp_path: Path) -> None:
    study(tmp_path / "calm", budget=FEW).run(executor=RecordedExecutor)
    before = [n for n in numbers(tmp_path / "calm") if n]
    executor = Slower(dict.fromkeys(before, 3.0))
    done = study(tmp_path / "slow", budget=FEW).run(executor=lambda _: executor)
    front = done.front
    after = [t.number for t in front.members]
    assert not set(before) <= set(after), "three times as slow as others"
    assert set(executor.confirmed) > {0, *before}, "what they hid is confirmed too"
    assert len(set(executor.confirmed)) == len(executor.confirmed)
    assert all(t.test for t in front.members)
    costs = {
        t.number: [o.cost(figures(t)) for o in front.objectives]
        for t in done.trials
        if t.comparable
    }
    for one, other in itertools.permutations(after, 2):
        assert not dominates(costs[one], costs[other])
    for number in set(costs) - {*after, 0}:
        assert any(dominates(costs[n], costs[number]) or costs[n] == costs[number] for n in after)


def test_passes_are_bounded(tmp_path: Path) -> None:
    executor = Slower({n: 2.0 + n for n in range(1, 41)})  # nobody is what the search says
    study(tmp_path, budget={"trials": 40}).run(executor=lambda _: executor)
    rounds = len(executor.timed) / len(executor.confirmed)
    assert rounds <= 2 * LAUNCHES - 1
    record = StudyRecord.load(tmp_path)
    assert record.stop_reason, f"it ends after {MOST_PASSES} passes, whatever is left"


def test_what_the_search_measured_otherwise_is_measured_once_more_and_said(tmp_path: Path) -> None:
    study(tmp_path / "calm", budget=FEW).run(executor=RecordedExecutor)
    odd = next(n for n in numbers(tmp_path / "calm") if n)
    executor = Slower({odd: 1.5})
    done = study(tmp_path / "odd", budget=FEW).run(executor=lambda _: executor)
    assert executor.timed.count(odd) == 2 * LAUNCHES - 1
    assert {executor.timed.count(n) for n in executor.confirmed} == {LAUNCHES - 1, 2 * LAUNCHES - 1}
    said = StudyRecord.load(tmp_path / "odd").measured_again
    assert list(said) == [odd]
    was, now = (m["latency_ratio"].mean for m in (done.trials[odd].metrics, done.trials[odd].test))
    assert now == pytest.approx(1.5 * was)
    assert f"latency_ratio was {was:.2f}x" in said[odd]
    assert f"is {now:.2f}x" in said[odd]
    found = StudyFront.load(tmp_path / "odd")
    assert " ".join(said[odd].split()) in " ".join(str(found).split())
    assert front_data(found)["measured_again"] == {str(odd): said[odd]}


def test_a_launch_that_fails_leaves_a_model_confirmed(tmp_path: Path) -> None:
    study(tmp_path / "calm", budget=FEW).run(executor=RecordedExecutor)
    odd = next(n for n in numbers(tmp_path / "calm") if n)
    executor = Slower({}, failing=odd)
    done = study(tmp_path / "odd", budget=FEW).run(executor=lambda _: executor)
    assert executor.timed.count(odd) == 1
    assert StudyRecord.load(tmp_path / "odd").unconfirmed == {}
    once = done.trials[odd].test["latency_ratio"].stderr
    others = [t.test["latency_ratio"] for t in done.trials if t.test and t.number != odd]
    assert (
        once
        > 1.3 * max(m.stderr / m.mean for m in others) * done.trials[odd].test["latency_ratio"].mean
    )
