"""What is left has no chance, by brute force; and what has one is not left."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petra.core.measurement import Measurement
from petra.core.objective import Constraint, named_objectives, violation
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.rivals import Rivals
from petra.core.trial import Trial, TrialStatus
from petra.execute.prospects import AUDITED, Span, audited, can_be_screened, hopeless
from petra.front import Front
from petra.search.base import Problem
from petra.search.rivalry import Rivalry, region
from petra.search.scaling import scale
from petra.testing.toy import toy_problem

COSTS = ("latency_ratio", "size_bytes", "params")
OBJECTIVES = named_objectives(("quality", *COSTS[:2]))
BOUNDS = tuple(map(Constraint.parse, ("quality >= baseline - 0.2", "size <= 700", "params <= 90")))
VALUES = (0.25, 0.5, 0.75, 1.0)


def measured(quality: float, latency: float, size: float, params: float) -> dict[str, Measurement]:
    values = {"quality": quality, "latency_ratio": latency, "size_bytes": size, "params": params}
    return {name: Measurement(value) for name, value in values.items()}


BASE = Trial(0, Pipeline(), TrialStatus.COMPLETE, metrics=measured(0.8, 1.0, 1000.0, 100.0))

Bounds = tuple[Constraint, ...]
points = st.builds(
    lambda q, a, b, c: measured(q, a, 1000 * b, 100 * c),
    st.sampled_from((0.3, 0.6, 0.7, 0.8, 0.9)),
    *[st.sampled_from((*VALUES, 1.2))] * 3,
)


def trial(
    number: int, metrics: dict[str, Measurement], constraints: tuple[Constraint, ...]
) -> Trial:
    inside = violation(constraints, metrics, BASE.metrics) == 0
    status = TrialStatus.COMPLETE if inside else TrialStatus.INFEASIBLE
    pipeline = Pipeline((StageSpec("tune", {"n": number}),))
    return Trial(number, pipeline, status, metrics=metrics)


def rivals_of(trials: list[Trial], constraints: Bounds) -> Rivals:
    problem: Problem = replace(toy_problem(), objectives=OBJECTIVES, constraints=constraints)
    rivalry = Rivalry(problem, BASE)
    for one in trials:
        rivalry.learn(one)
    return rivalry.rivals


@settings(max_examples=300, deadline=None)
@given(
    others=st.lists(points, max_size=6),
    mine=points,
    constraints=st.sampled_from([(), BOUNDS]),
    slack=st.sampled_from([0.0, 0.2]),
    with_quality=st.booleans(),
)
def test_what_is_hopeless_is_never_on_the_front_and_the_rest_may_be(
    others: list[dict[str, Measurement]],
    mine: dict[str, Measurement],
    constraints: Bounds,
    slack: float,
    with_quality: bool,
) -> None:
    """Up to what the bound promises: with a quality no better than the best that was seen."""
    trials = [trial(n, metrics, constraints) for n, metrics in enumerate(others, 1)]
    rivals = rivals_of(trials, constraints)
    known = {
        name: Span(mine[name].mean * (1 - slack), mine[name].mean * (1 + slack)) for name in COSTS
    }
    seen = max(m["quality"].mean for m in (BASE.metrics, *rivals.front))
    if with_quality:
        known["quality"] = Span(mine["quality"].mean - slack, mine["quality"].mean + slack)
    quality = known["quality"].high if with_quality else min(seen, mine["quality"].mean)
    actual = measured(quality, *(known[name].low for name in COSTS))
    found = hopeless(known, rivals)
    tried = trial(99, actual, constraints)
    front = Front.of([BASE, *trials, tried], OBJECTIVES, constraints)
    scaling = scale(OBJECTIVES, constraints, BASE)
    counts = bool((scaling.costs(tried) <= scaling.reference + 1e-9).all())
    on_front = tried in front.members
    if found:
        assert not (on_front and counts), found
    elif with_quality:
        mine_costs = [o.cost(actual) for o in OBJECTIVES]
        copy = any([o.cost(m) for o in OBJECTIVES] == mine_costs for m in rivals.front)
        assert tried.status is TrialStatus.COMPLETE
        assert counts
        assert on_front or copy


def test_why_is_said_in_words() -> None:
    rivals = rivals_of([trial(1, measured(0.85, 0.5, 400, 50), BOUNDS)], BOUNDS)
    exact = {"latency_ratio": Span(0.4, 0.4), "size_bytes": Span(450, 450), "params": Span(60, 60)}
    assert hopeless(exact, rivals) is None, "it is faster"
    big = hopeless({**exact, "size_bytes": Span(800, 900)}, rivals)
    assert (big and (big.kind, big.reason)) == (
        "constraint",
        "size_bytes 800 at best: size_bytes <= 700",
    )
    slow = hopeless({**exact, "latency_ratio": Span(1.3, 1.5)}, rivals)
    assert slow is not None
    assert slow.kind == "region"
    assert "beyond 1.1" in slow.reason
    beaten = hopeless({**exact, "latency_ratio": Span(0.6, 0.7)}, rivals)
    assert beaten is not None
    assert beaten.kind == "dominated"
    assert "latency_ratio 0.6 against 0.5" in beaten.reason


def test_what_costs_what_a_rival_costs_is_left_to_training() -> None:
    """Equal within the error: a tuned model costs what the untouched one does."""
    rivals = rivals_of([], ())
    same = {
        "latency_ratio": Span(0.95, 1.05),
        "size_bytes": Span(990, 1010),
        "params": Span(100, 100),
    }
    assert hopeless(same, rivals) is None


def test_what_nobody_knows_leaves_nothing() -> None:
    """Of an objective that is neither known nor the task's, the best is hoped for."""
    objectives = named_objectives(("quality", "size_bytes", "memory_mb"))
    base = {**BASE.metrics, "memory_mb": Measurement(10.0)}
    better = {**measured(0.9, 0.5, 100, 10), "memory_mb": Measurement(1.0)}
    rivals = Rivals(objectives, (), base, (better,))
    assert hopeless({"size_bytes": Span(200, 200)}, rivals) is None
    assert hopeless({"size_bytes": Span(200, 200), "memory_mb": Span(2, 2)}, rivals) is not None


def test_a_lower_bound_on_a_cost_is_missed_only_from_above() -> None:
    rivals = Rivals((), (Constraint.parse("size >= 500"),), BASE.metrics)
    assert hopeless({"size_bytes": Span(400, 600)}, rivals) is None
    assert hopeless({"size_bytes": Span(400, 450)}, rivals) is not None


def test_a_tenth_is_audited_whoever_asks() -> None:
    pipelines = [Pipeline((StageSpec("tune", {"n": n}),)) for n in range(2000)]
    first = [audited(3, p) for p in pipelines]
    assert first == [audited(3, p) for p in pipelines]
    assert first != [audited(4, p) for p in pipelines]
    assert sum(first) == pytest.approx(2000 / AUDITED, rel=0.2)


def test_there_is_something_to_fail_or_nobody_is_screened() -> None:
    costs = frozenset({"size_bytes", "latency_ratio"})
    alone = rivals_of([], ())
    assert not can_be_screened(alone, costs)
    assert not can_be_screened(rivals_of([], BOUNDS[:1]), costs), "quality is no cost"
    assert can_be_screened(rivals_of([], BOUNDS), costs)
    assert can_be_screened(rivals_of([trial(1, measured(0.7, 0.5, 500, 9), ())], ()), costs)


@pytest.mark.parametrize("constraints", [(), BOUNDS])
def test_the_region_is_the_reference_point_in_the_metrics_units(
    constraints: Bounds,
) -> None:
    worst = region(OBJECTIVES, constraints, BASE)
    at = trial(1, {name: Measurement(value) for name, value in worst.items()}, ())
    scaling = scale(OBJECTIVES, constraints, BASE)
    assert scaling.costs(at) == pytest.approx(scaling.reference, rel=0.01)
    assert (
        region(
            named_objectives(("memory_mb",)),
            (),
            replace(BASE, metrics={"memory_mb": Measurement(0.0)}),
        )
        == {}
    )
