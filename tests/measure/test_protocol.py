"""Timing arithmetic on made-up samples, and the protocol on real callables. No wall-clock figure is
asserted.
"""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from petra.core.measurement import Measurement
from petra.measure.protocol import (
    SEARCH,
    Paired,
    Protocol,
    Race,
    latency_measurements,
    percentile,
    ratio_measurement,
    settled,
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


# ---- when to stop --------------------------------------------------------------------------------


def rounds_of(ratio: float, noise: float, race: Race, rng: np.random.Generator) -> list[float]:
    ratios: list[float] = []
    while len(ratios) < SEARCH.max_rounds:
        ratios.append(ratio * (1 + rng.normal(0, noise)))
        enough = len(ratios) >= SEARCH.min_rounds
        if enough and settled(ratio_measurement(tuple(ratios), host=""), race, SEARCH.precision):
            break
    return ratios


def test_rounds_are_spent_where_a_threshold_is_near() -> None:
    """A noisy machine, on which 0.5% is out of reach: far from every threshold, rounds end."""
    rng = np.random.default_rng(0)
    spent = {
        ratio: np.mean([len(rounds_of(ratio, 0.06, Race((0.7,)), rng)) for _ in range(100)])
        for ratio in (0.3, 0.5, 0.67, 0.69)
    }
    assert spent[0.3] == SEARCH.min_rounds
    assert spent[0.5] < 1.2 * SEARCH.min_rounds
    assert 1.5 * SEARCH.min_rounds < spent[0.67] < spent[0.69]
    assert spent[0.69] > 0.8 * SEARCH.max_rounds
    precise = [len(rounds_of(0.5, 0.06, Race(), rng)) for _ in range(20)]
    assert min(precise) == SEARCH.max_rounds, "without a race it is timed to the end"
    free = [len(rounds_of(0.5, 0.06, Race(()), rng)) for _ in range(20)]
    assert max(free) == SEARCH.min_rounds, "nothing depends on it"


def test_races_that_ended_early_were_decided_rightly() -> None:
    """Stopping at the first round that looks clear is what makes looks err; 3 errors of distance
    leave less than one in a hundred, about as many as the full number of rounds does.
    """
    rng = np.random.default_rng(1)
    wrong = total = 0
    for ratio in np.linspace(0.62, 0.78, 17):
        for _ in range(60):
            ratios = rounds_of(float(ratio), 0.06, Race((0.7,)), rng)
            if len(ratios) < SEARCH.max_rounds:
                total += 1
                wrong += (np.median(ratios) > 0.7) != (ratio > 0.7)
    assert total > 500
    assert wrong <= 0.01 * total


def test_rounds_are_no_finer_than_a_launch() -> None:
    rng = np.random.default_rng(2)
    fine = [rounds_of(0.5, 0.02, Race(None, 0.0), rng) for _ in range(50)]
    coarse = [rounds_of(0.5, 0.02, Race(None, 0.03), rng) for _ in range(50)]
    assert np.mean([len(r) for r in coarse]) < 0.5 * np.mean([len(r) for r in fine])
    errors = [ratio_measurement(tuple(r), host="").stderr / 0.5 for r in coarse]
    assert max(math.hypot(e, 0.03) for e in errors) < 1.06 * 0.03


@pytest.mark.parametrize(
    ("ratio", "race", "done"),
    [
        (Measurement(0.5, 0.002), Race(), True),  # 0.4%
        (Measurement(0.5, 0.003), Race(), False),
        (Measurement(0.5, 0.003), Race(None, 0.02), True),
        (Measurement(0.5, 0.02), Race(()), True),
        (Measurement(0.5, 0.02), Race((0.57,)), True),
        (Measurement(0.5, 0.02), Race((0.55,)), False),
        (Measurement(0.5, 0.02), Race((0.2, 0.55, 0.9)), False),
        (Measurement(0.5, 0.02), Race((0.57,), 0.04), False),  # another launch may be beyond it
    ],
)
def test_settled(ratio: Measurement, race: Race, done: bool) -> None:
    assert settled(ratio, race, 0.005) is done
