"""Which members of a front cannot be told from one of lower costs."""

from __future__ import annotations

from dataclasses import replace

from petra.certainty import doubtful_pairs, no_better
from petra.core.measurement import Measurement
from petra.core.objective import named_objectives
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import Trial, TrialStatus
from petra.front import Front

OBJECTIVES = named_objectives(("quality", "latency_ratio", "size_bytes"), maximize_quality=True)


def made(number: int, quality: float, latency: float, size: float) -> Trial:
    metrics = {
        "quality": Measurement(quality, 0.01, 500),
        "latency_ratio": Measurement(latency, 0.005, 20, "x"),
        "size_bytes": Measurement(size, unit="B"),
    }
    pipeline = Pipeline((StageSpec("tune", {"epochs": number}),)) if number else Pipeline()
    return Trial(number, pipeline, TrialStatus.COMPLETE, metrics=metrics)


def front(*trials: Trial) -> Front:
    return Front.of(trials, OBJECTIVES, ())


BASE = made(0, 0.900, 1.0, 1000)
CHEAP, DEAR, FAST = made(1, 0.890, 0.5, 400), made(2, 0.895, 0.8, 600), made(3, 0.880, 0.3, 500)


def pairs(found: Front) -> set[tuple[int, int]]:
    return {(one.number, other.number) for one, other in doubtful_pairs(found)}


def test_pairs_are_those_where_only_quality_speaks_for_the_dearer() -> None:
    assert pairs(front(BASE, CHEAP, DEAR, FAST)) == {(0, 1), (0, 2), (0, 3), (2, 1), (2, 3)}


def test_a_cost_within_its_error_is_no_reason_to_keep_a_model() -> None:
    """Trial 4 seems a little faster than trial 1, and is larger."""
    seems = made(4, 0.890, 0.495, 500)
    assert (4, 1) in pairs(front(BASE, CHEAP, seems))
    is_faster = made(4, 0.890, 0.45, 500)
    assert (4, 1) not in pairs(front(BASE, CHEAP, is_faster))


def test_only_certain_gains_in_quality_keep_a_member_unmarked() -> None:
    found = front(BASE, CHEAP, DEAR)
    sure, unsure = Measurement(0.01, 0.002, 500), Measurement(0.01, 0.02, 500)
    differences = {(0, 1): sure, (0, 2): sure, (2, 1): unsure}
    assert no_better(found, differences) == {2: 1}
    assert no_better(found, {**differences, (2, 1): sure}) == {}
    assert no_better(found, {}) == {}, "what was not compared is not judged"


def test_an_error_is_better_when_it_is_less() -> None:
    down = named_objectives(("quality", "latency_ratio", "size_bytes"), maximize_quality=False)
    trials = [made(0, 0.10, 1.0, 1000), made(1, 0.12, 0.5, 400)]
    found = replace(Front.of(trials, down, ()))
    assert not found.maximize_quality
    assert no_better(found, {(0, 1): Measurement(-0.02, 0.002, 500)}) == {}
    assert no_better(found, {(0, 1): Measurement(-0.02, 0.02, 500)}) == {0: 1}
