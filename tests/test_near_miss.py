"""A study without a feasible model says which constraint binds, and what would help."""

from __future__ import annotations

from dataclasses import replace

import pytest

from petra.core.measurement import Measurement
from petra.core.objective import Constraint, violation
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import Failure, Trial, TrialStatus
from petra.front import Front
from petra.near_miss import nearest_miss
from petra.testing.toy import OBJECTIVES, toy_baseline

BASE = toy_baseline()
LIMITS = (Constraint.parse("size <= 60 kB"), Constraint.parse("quality >= 0.9"))


def trial(number: int, size: float, quality: float) -> Trial:
    metrics = {**BASE.metrics}
    for name, value in (("size_bytes", size), ("quality", quality)):
        metrics[name] = replace(metrics[name], mean=value)
    pipeline = Pipeline((StageSpec("prune", {"ratio": number / 100}),))
    return Trial(number, pipeline, TrialStatus.INFEASIBLE, metrics=metrics)


def test_the_nearest_is_the_one_of_least_violation_and_says_what_would_do() -> None:
    trials = [trial(1, 90e3, 0.95), trial(2, 61_234, 0.93), trial(3, 40e3, 0.6)]
    found = nearest_miss(trials, LIMITS, BASE.metrics)
    assert found is not None
    least = min(trials, key=lambda t: violation(LIMITS, t.metrics, BASE.metrics))
    assert found.number == least.number == 2
    assert str(found.binds) == "size_bytes <= 60000", "two of three break it alone"
    assert [m.by for m in found.misses] == [pytest.approx(1234 / 60_000)]
    assert found.misses[0].enough == "size_bytes <= 61300"
    for miss in found.misses:
        assert Constraint.parse(miss.enough).violation(least.metrics, BASE.metrics) == 0
    assert "size_bytes 61234 is 2.1% above 60000" in str(found)


@pytest.mark.parametrize("quality", [0.8999, 0.5, 1e-5, 0.0, -3.21])
def test_what_would_do_lets_the_trial_through_on_either_side(quality: float) -> None:
    one = trial(1, 1.23456e9, quality)
    found = nearest_miss([one], LIMITS, BASE.metrics)
    assert found is not None
    assert len(found.misses) == 2
    for miss in found.misses:
        assert Constraint.parse(miss.enough).violation(one.metrics, BASE.metrics) == 0


def test_more_time_is_advised_only_while_the_search_comes_nearer() -> None:
    early = [trial(n, 70e3 + (n != 2) * 9e3, 0.95) for n in range(1, 31)]
    late = [trial(n, 99e3 - n * 1e3, 0.95) for n in range(1, 31)]
    hints = [nearest_miss(t, LIMITS, BASE.metrics) for t in (early, late, early[:4])]
    assert [hint is not None and hint.late for hint in hints] == [False, True, True]


def test_an_empty_front_tells_it_and_one_with_members_does_not() -> None:
    trials = [BASE, trial(1, 90e3, 0.95), trial(2, 61_234, 0.93)]
    front = Front.of(trials, OBJECTIVES, LIMITS)
    assert "size_bytes <= 60000 binds; nearest is trial 2" in front.why_empty()
    assert front.nearest() is not None
    fine = replace(trial(3, 5e4, 0.95), status=TrialStatus.COMPLETE)
    assert Front.of([*trials, fine], OBJECTIVES, LIMITS).nearest() is None


def test_every_trial_is_counted_once() -> None:
    failure = Failure("prune", "StageRefused", "no")
    failed = [Trial(n, Pipeline(), TrialStatus.FAILED, failure=failure) for n in (4, 5)]
    odd = [
        Trial(n, Pipeline(), TrialStatus.FAILED, failure=Failure("export", f"Kind{n}", "no"))
        for n in range(6, 13)
    ]
    both, size, quality = trial(1, 90e3, 0.5), trial(2, 90e3, 0.95), trial(3, 5e4, 0.5)
    found = Front.of([BASE, both, size, quality, *failed, *odd], OBJECTIVES, LIMITS).why_empty()
    reasons = found.removeprefix("none of 12 trials is feasible: ").split("; ")
    counts = [int(text.split()[0]) for text in reasons if text[0].isdigit()]
    assert sum(counts) == 12
    assert f"1 violates {LIMITS[0]} and {LIMITS[1]}" in reasons
    assert "2 failed in prune: StageRefused" in reasons
    assert "3 failed otherwise" in reasons


def test_without_a_measured_trial_there_is_nothing_to_tell() -> None:
    broken = Trial(
        1, Pipeline(), TrialStatus.FAILED, failure=Failure("prune", "StageRefused", "no")
    )
    assert nearest_miss([broken], LIMITS, BASE.metrics) is None
    nan = trial(2, float("nan"), 0.95)
    assert nearest_miss([nan], LIMITS, BASE.metrics) is None
    known = replace(trial(3, 61e3, 0.95), metrics={"size_bytes": Measurement(61e3, unit="B")})
    assert nearest_miss([known], LIMITS[:1], BASE.metrics) is not None
