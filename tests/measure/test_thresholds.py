"""Which latencies decide about a candidate, against a brute force over all that it may have."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from petra.core.measurement import Measurement
from petra.core.objective import Constraint, Metrics, named_objectives
from petra.core.rivals import Rivals
from petra.measure.thresholds import latency_thresholds
from petra.moo.dominance import dominates

THREE = named_objectives(("quality", "latency_ratio", "size_bytes"), maximize_quality=True)
BASE: Metrics = {
    "quality": Measurement(0.9),
    "latency_ratio": Measurement(1.0),
    "latency_ms": Measurement(4.0),
    "size_bytes": Measurement(1e6),
}


def metrics(quality: float, ratio: float, size: float) -> Metrics:
    named = {"quality": quality, "latency_ratio": ratio, "size_bytes": size}
    return {name: Measurement(value) for name, value in named.items()}


def rivals(front: tuple[Metrics, ...], *constraints: str) -> Rivals:
    bounds = tuple(map(Constraint.parse, constraints))
    return Rivals(THREE, bounds, BASE, front)


def verdicts(candidate: Metrics, against: Rivals) -> tuple[object, ...]:
    """Everything about it that its latency may decide."""
    mine = [o.cost(candidate) for o in against.objectives]
    theirs = [[o.cost(rival) for o in against.objectives] for rival in against.front]
    return tuple((dominates(mine, other), dominates(other, mine)) for other in theirs)


@pytest.mark.parametrize("seed", range(20))
def test_between_two_thresholds_no_latency_changes_a_verdict(seed: int) -> None:
    rng = np.random.default_rng(seed)
    front = tuple(
        metrics(
            *(
                float(rng.choice(values))
                for values in ((0.7, 0.8, 0.9), (0.3, 0.5, 0.8), (1e5, 3e5))
            )
        )
        for _ in range(4)
    )
    quality, size = float(rng.choice((0.7, 0.8, 0.9))), float(rng.choice((1e5, 3e5)))
    known = {"quality": Measurement(quality), "size_bytes": Measurement(size)}
    for given in (known, {"size_bytes": known["size_bytes"]}):
        thresholds = latency_thresholds(rivals(front), given)
        assert thresholds is not None
        edges = [0.0, *thresholds, 2.0]
        for low, high in itertools.pairwise(edges):
            inside = [low + share * (high - low) for share in (0.1, 0.5, 0.9)]
            found = {verdicts(metrics(quality, ratio, size), rivals(front)) for ratio in inside}
            assert len(found) == 1


def test_rivals_that_latency_cannot_decide_about_are_left_out() -> None:
    smaller_and_worse = metrics(0.7, 0.3, 1e5)
    known = {"quality": Measurement(0.8), "size_bytes": Measurement(3e5)}
    assert latency_thresholds(rivals((smaller_and_worse,)), known) == ()
    assert latency_thresholds(rivals((smaller_and_worse,)), {}) == (0.3,)
    assert latency_thresholds(rivals(()), known) == ()


def test_bounds_are_thresholds() -> None:
    found = latency_thresholds(
        rivals((), "latency_ms <= 2 ms", "latency <= 0.8", "latency_ms <= 0.25 * baseline"), {}
    )
    assert found == (0.25, 0.5, 0.8)


def test_a_percentile_wants_all_calls() -> None:
    assert latency_thresholds(rivals((), "latency_p95_ms <= 3 ms"), {}) is None


def test_a_search_that_is_not_about_latency_needs_none() -> None:
    two = named_objectives(("quality", "size_bytes"), maximize_quality=True)
    assert latency_thresholds(Rivals(two, (), BASE, (metrics(0.7, 0.3, 1e5),)), {}) == ()
