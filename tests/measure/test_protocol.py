"""Timing arithmetic on made-up samples, and the protocol on real callables. No wall-clock figure is
asserted.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from petra.measure.protocol import (
    Paired,
    Protocol,
    latency_measurements,
    percentile,
    ratio_measurement,
    throughput_measurements,
    time_paired,
)

QUICK = Protocol(min_rounds=4, max_rounds=8, seconds=2.0, block_ms=1.0, warmup=1)


def test_percentile_matches_numpy() -> None:
    samples = tuple(random.Random(0).random() for _ in range(37))
    for q in (0, 5, 50, 95, 100):
        assert percentile(samples, q) == pytest.approx(float(np.percentile(samples, q)))


def test_ratio_is_robust_to_a_disturbed_round() -> None:
    quiet = ratio_measurement((0.5, 0.51, 0.49, 0.5, 0.5), host="h")
    disturbed = ratio_measurement((0.5, 0.51, 0.49, 0.5, 25.0), host="h")
    assert disturbed.mean == pytest.approx(quiet.mean, abs=0.011)
    assert disturbed.unit == "x"


def test_the_ratio_is_known_better_with_more_rounds() -> None:
    rng = random.Random(1)
    ratios = tuple(rng.gauss(0.5, 0.05) for _ in range(400))
    few, many = ratio_measurement(ratios[:25], host=""), ratio_measurement(ratios, host="")
    assert many.stderr < few.stderr
    assert abs(many.mean - 0.5) < 4 * many.stderr


def test_measurements_have_units_and_directions() -> None:
    paired = Paired(baseline_s=(0.002,) * 6, candidate_s=(0.001,) * 6, ratios=(0.5, 0.5, 0.5))
    latency = latency_measurements(paired, host="h")
    assert latency["latency_ms"].mean == pytest.approx(1.0)
    assert latency["latency_ratio"].mean == pytest.approx(0.5)
    throughput = throughput_measurements(paired, 64, host="h")
    assert throughput["throughput"].mean == pytest.approx(64_000)
    assert throughput["throughput_ratio"].mean == pytest.approx(2.0)


def test_both_sides_are_called_alternately_and_as_often() -> None:
    calls: list[str] = []
    paired = time_paired(lambda: calls.append("b"), lambda: calls.append("c"), QUICK)
    assert QUICK.min_rounds <= len(paired.ratios) <= QUICK.max_rounds
    timed = len(paired.baseline_s) + len(paired.candidate_s)
    assert timed <= len(calls)
    blocks = "".join(c for i, c in enumerate(calls) if i == 0 or c != calls[i - 1])
    assert "bccb" not in blocks  # collapsed runs: sides change between blocks
    assert {"b", "c"} == set(blocks)


def test_a_heavier_callable_is_slower() -> None:
    """Ratios, not times: four times the work in the same process is clearly more than the work
    itself.
    """
    a = np.random.default_rng(0).random((120, 120))

    def work(n: int) -> None:
        for _ in range(n):
            a @ a

    paired = time_paired(lambda: work(1), lambda: work(8), QUICK)
    assert ratio_measurement(paired.ratios, host="").mean > 2
