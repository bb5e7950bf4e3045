"""What each name picks from a front."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_trials import BASE, front, made

from petra.core.errors import ConfigError
from petra.core.measurement import Measurement
from petra.core.objective import named_objectives
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import Failure, Trial, TrialStatus
from petra.front import Front, confirmed
from petra.report.study_front import StudyFront
from petra.testing.studies import toy_study


@pytest.mark.parametrize("seed", range(6))
def test_smallest_fastest_best_against_a_plain_loop(tmp_path: Path, seed: int) -> None:
    found = StudyFront.load(toy_study(tmp_path, trials=25, seed=seed))

    def quality(t: Trial) -> float:
        return t.metrics["quality"].mean

    best = max(found.members, key=lambda t: (quality(t), -t.number))
    assert found.choose("best").number == best.number
    least = min(t.metrics["size_bytes"].mean for t in found.members)
    tied = [t for t in found.members if t.metrics["size_bytes"].mean == least]
    assert (
        found.choose("smallest").number == max(tied, key=lambda t: (quality(t), -t.number)).number
    )
    top = min(
        (confirmed(t, "latency_ratio") for t in found.members), key=lambda m: m.mean
    ).interval[1]
    tied = [t for t in found.members if confirmed(t, "latency_ratio").interval[0] <= top]
    assert found.choose("fastest").number == max(tied, key=lambda t: (quality(t), -t.number)).number


def test_fastest_does_not_pay_quality_for_timing_noise() -> None:
    a, b = made(1, 0.7, 0.500, 400.0, noise=0.005), made(2, 0.85, 0.502, 500.0, noise=0.005)
    assert front(BASE, a, b).choose("fastest").number == 2
    a, b = made(1, 0.7, 0.400, 400.0, noise=0.005), made(2, 0.85, 0.502, 500.0, noise=0.005)
    assert front(BASE, a, b).choose("fastest").number == 1


def test_knee_is_the_bulge_and_ignores_ruined_models() -> None:
    objectives = named_objectives(("quality", "size_bytes"), maximize_quality=True)
    trials = [BASE, made(1, 0.89, 1.0, 300.0), made(2, 0.80, 1.0, 280.0), made(3, 0.85, 1.0, 290.0)]
    assert front(*trials, objectives=objectives).choose("knee").number == 1
    ruined = made(4, 0.1, 1.0, 1.0)
    assert front(*trials, ruined, objectives=objectives).choose("knee").number == 1


def test_best_follows_the_direction_of_the_metric() -> None:
    objectives = named_objectives(("quality", "size_bytes"), maximize_quality=False)
    found = front(
        made(0, 0.5, 1.0, 1000.0),
        made(1, 0.7, 1.0, 100.0),
        made(2, 0.6, 1.0, 200.0),
        objectives=objectives,
    )
    assert found.choose("best").number == 0
    costs_only = named_objectives(("latency_ratio", "size_bytes"), maximize_quality=False)
    trials = [made(1, 0.7, 0.5, 100.0), made(2, 0.6, 0.4, 200.0)]
    found = Front.of([BASE, *trials], costs_only, [], maximize_quality=False)
    assert found.choose("best").number == 2


def test_choosing_never_looks_at_test_quality() -> None:
    a = made(1, 0.80, 0.5, 500.0, test={"quality": Measurement(0.99, 0.01, 100)})
    b = made(2, 0.85, 0.6, 600.0, test={"quality": Measurement(0.10, 0.01, 100)})
    assert front(made(0, 0.7, 1.0, 1000.0), a, b).choose("best").number == 2


def test_pick_by_number_and_what_is_said_of_other_numbers() -> None:
    broken = Trial(
        3,
        Pipeline((StageSpec("x"),)),
        TrialStatus.FAILED,
        failure=Failure("prune", "E", "no channels\nx"),
    )
    outside = made(4, 0.5, 0.1, 10.0, status=TrialStatus.INFEASIBLE)
    trials = (BASE, made(1, 0.8, 0.5, 500.0), made(2, 0.7, 0.6, 600.0), broken, outside)
    found = front(*trials, constraints=("quality >= 0.6",))
    assert found.choose(1).number == found.choose("1").number == 1
    for number, said in (
        (2, "trial 1 is nowhere worse"),
        (3, "failed in prune: no channels"),
        (4, "violates quality >= 0.6"),
        (9, "there is no trial 9"),
        (-1, "there is no trial -1"),
    ):
        with pytest.raises(ConfigError, match=said) as error:
            found.choose(number)
        assert error.value.hint == "on the front: 1, 0"
