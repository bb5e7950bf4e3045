"""Constraints: what is read, what is refused, and how a violation is counted."""

from __future__ import annotations

import math

import pytest

from petra.core.errors import ConfigError
from petra.core.measurement import Measurement
from petra.core.metric import METRICS
from petra.core.objective import (
    Constraint,
    Objective,
    baseline_value,
    check_attainable,
    violation,
)

BASE = {
    "quality": Measurement(0.9),
    "latency_ratio": Measurement(1.02, unit="x"),
    "latency_ms": Measurement(4.0),
    "size_bytes": Measurement(1000.0),
}


@pytest.mark.parametrize(
    ("text", "metric", "at_least", "bound"),
    [
        ("size <= 300 kB", "size_bytes", False, 300_000),
        ("size_bytes<=300000", "size_bytes", False, 300_000),
        ("size <= 1_500 b", "size_bytes", False, 1500),
        ("size <= 0.5 * baseline", "size_bytes", False, 500),
        ("size <= .5*baseline", "size_bytes", False, 500),
        ("size <= baseline * 0.5", "size_bytes", False, 500),
        ("size <= baseline", "size_bytes", False, 1000),
        ("quality >= baseline - 0.01", "quality", True, 0.89),
        ("quality >= baseline + 1e-2", "quality", True, 0.91),
        ("quality >= 95 %", "quality", True, 0.95),
        ("latency <= 90%", "latency_ratio", False, 0.9),
        ("latency <= 0.5 * baseline", "latency_ratio", False, 0.5),
        ("latency_ms <= 2 s", "latency_ms", False, 2000),
        ("LATENCY_MS <= 2".lower(), "latency_ms", False, 2),
        ("memory <= 0.5 GB", "memory_mb", False, 500),
        ("memory <= 500 MB", "memory_mb", False, 500),
        ("train_s <= 1 h", "train_s", False, 3600),
        ("throughput >= 100", "throughput", True, 100),
    ],
)
def test_good_constraints(text: str, metric: str, at_least: bool, bound: float) -> None:
    c = Constraint.parse(text)
    assert (c.metric, c.at_least) == (metric, at_least)
    assert c.bound(BASE) == pytest.approx(bound, rel=1e-12)
    assert Constraint.parse(str(c)) == c


@pytest.mark.parametrize(
    "text",
    [
        "",
        "size",
        "size < 3",
        "size == 3",
        "size <= 300 kib",
        "size <= three",
        "size <= 1_",
        "size <= 5 ms",
        "size <= 5 %",
        "params <= 50%",
        "latency_ms <= 300 kB",
        "throughput >= 10 items",
        "speed >= 2",
        "quality >= baseline - 1%",
        "quality >= baseline ** 2",
        "0.5 >= quality",
    ],
)
def test_bad_constraints_say_where(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^constraints\[2\]: ") as caught:
        Constraint.parse(text, where="constraints[2]")
    assert caught.value.hint


def test_violations_are_relative_and_add_up() -> None:
    metrics = {"quality": Measurement(0.445), "size_bytes": Measurement(750.0)}
    cs = [
        Constraint.parse("quality >= baseline - 0.01"),
        Constraint.parse("size <= 0.5 * baseline"),
    ]
    assert [c.violation(metrics, BASE) for c in cs] == pytest.approx([0.5, 0.5])
    assert violation(cs, metrics, BASE) == pytest.approx(1.0)
    assert (
        violation(cs, {"quality": Measurement(0.95), "size_bytes": Measurement(10.0)}, BASE) == 0.0
    )
    assert violation([], {}, BASE) == 0.0


def test_a_value_at_the_bound_is_inside() -> None:
    for start in (0.9, 0.7, 0.3, 0.1 + 0.2):
        base = {"quality": Measurement(start)}
        reached = {"quality": Measurement(round(start - 0.01, 12))}
        assert Constraint.parse("quality >= baseline - 0.01").violation(reached, base) == 0.0


def test_a_value_that_is_no_number_is_never_inside() -> None:
    for text in ("quality >= 0.5", "quality <= 0.5"):
        assert (
            Constraint.parse(text).violation({"quality": Measurement(math.nan)}, BASE) == math.inf
        )


def test_the_baseline_of_a_ratio_is_one_and_of_a_missing_metric_nothing() -> None:
    assert baseline_value("latency_ratio", BASE) == 1.0
    assert baseline_value("throughput_ratio", {}) == 1.0
    assert baseline_value("latency_ms", BASE) == 4.0
    with pytest.raises(KeyError):
        Constraint.parse("memory <= 0.5 * baseline").bound(BASE)


@pytest.mark.parametrize(
    "texts",
    [
        ["size <= 0"],
        ["quality >= 0.9", "quality <= 0.8"],
        ["size <= 10", "size >= 5", "size >= 20"],
        [
            "size >= 0.9 * baseline",
            "size <= 0.9 * baseline",
            "quality >= baseline",
            "quality <= baseline - 0.1",
        ],
    ],
)
def test_impossible_demands_are_refused(texts: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^constraints: "):
        check_attainable([Constraint.parse(t) for t in texts], where="constraints")


def test_possible_demands_pass() -> None:
    texts = [
        "quality >= 0.8",
        "quality <= 0.9",
        "size <= 10",
        "size <= 0.5 * baseline",
        "quality >= baseline - 1",
    ]
    check_attainable([Constraint.parse(t) for t in texts], where="constraints")


def test_costs_are_minimised() -> None:
    assert Objective("quality", True).cost(BASE) == -0.9
    assert Objective("latency_ms", False).cost(BASE) == pytest.approx(4.0, rel=0.006)
    assert [name for name, m in METRICS.items() if m.maximize is None] == ["quality"]


def test_measurements() -> None:
    m = Measurement.of([1.0, 2.0, 3.0, 4.0], unit="ms")
    assert (m.mean, m.n) == (2.5, 4)
    assert m.stderr == pytest.approx(math.sqrt(5 / 3 / 4))
    assert m.interval == pytest.approx((2.5 - 1.96 * m.stderr, 2.5 + 1.96 * m.stderr))
    assert Measurement.of([7.0]).stderr == 0.0
    assert Measurement(**m.as_dict()) == m  # type: ignore[arg-type]
    assert str(m) == "2.5 ± 0.65 ms"
    with pytest.raises(ValueError, match="at least one"):
        Measurement.of([])


def test_noise_of_timed_metrics_decides_nothing() -> None:
    """Values within half a percent of a grid point count as equal; counted metrics are exact."""
    latency, size = Objective("latency_ratio", False), Objective("size_bytes", False)
    near = [
        {"latency_ratio": Measurement(v), "size_bytes": Measurement(1000 * v)}
        for v in (0.7004, 0.6996)
    ]
    assert latency.cost(near[0]) == latency.cost(near[1])
    assert size.cost(near[0]) != size.cost(near[1])
    assert latency.cost({"latency_ratio": Measurement(0.72)}) > latency.cost(near[0])
    assert latency.cost({"latency_ratio": Measurement(1.0)}) == 1.0
