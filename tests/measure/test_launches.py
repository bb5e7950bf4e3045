"""Stated intervals against the truth, in simulations whose truth is known: launches that differ,
rounds within them, and rules that stop them.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from petra.core.measurement import Measurement
from petra.measure.launches import (
    LAUNCHES,
    LEAST,
    PRIOR,
    Spread,
    of_equals,
    of_itself,
    random_effects,
    spread_by,
    together,
)
from petra.measure.protocol import SEARCH, Race, ratio_measurement, settled

STUDIES = 250


def launch(
    rng: np.random.Generator, ratio: float, sd: float, noise: float, race: Race
) -> list[float]:
    """The rounds of one launch as `time_paired` would stop them: one in ten is disturbed."""
    level, ratios = ratio * math.exp(rng.normal(0, sd)), list[float]()
    while len(ratios) < SEARCH.max_rounds:
        wild = 1 + 10 * (rng.random() < 0.1) * rng.random() * noise
        ratios.append(level * (1 + rng.normal(0, noise)) * wild)
        if len(ratios) >= SEARCH.min_rounds and settled(said(ratios), race, SEARCH.precision):
            break
    return ratios


def said(ratios: list[float]) -> Measurement:
    return ratio_measurement(tuple(ratios), host="")


def covers(m: Measurement, truth: float) -> bool:
    low, high = m.interval
    return low <= truth <= high


def overlap(one: Measurement, other: Measurement) -> bool:
    return max(one.interval[0], other.interval[0]) <= min(one.interval[1], other.interval[1])


def simulated(
    rng: np.random.Generator, sd: float, noise: float
) -> tuple[Measurement, Measurement, Measurement, int]:
    """One study with a candidate of ratio 0.6: its bare launch, what the search states, what
    confirmation states, and the search's rounds.
    """
    equals = [said(launch(rng, 1.0, sd, noise, Race())) for _ in range(LAUNCHES)]
    first = of_itself([{"latency_ratio": m} for m in equals])["latency_ratio"]
    spread = spread_by(first)
    race = Race((), spread.sd)
    bare = said(launch(rng, 0.6, sd, noise, race))
    again = [said(launch(rng, 0.6, sd, noise, Race(None, spread.sd))) for _ in range(LAUNCHES)]
    return bare, random_effects([bare], spread), random_effects(again, spread), bare.n


@pytest.mark.parametrize("sd", [0.005, 0.02, 0.06])
def test_stated_intervals_cover_what_varies_between_launches(sd: float) -> None:
    rng = np.random.default_rng(round(1000 * sd))
    found = [simulated(rng, sd, noise=0.02) for _ in range(STUDIES)]
    bare, searched, confirmed = (
        sum(covers(study[i], 0.6) for study in found) / STUDIES  # type: ignore[arg-type]
        for i in range(3)
    )
    # Launches that differ by twice what is usual are seen, but three say little of how much.
    least = 0.93 if sd <= PRIOR.sd else 0.87
    assert searched > least
    assert confirmed > least
    if sd > 0.01:
        assert bare < 0.7, "rounds of one launch know nothing of other launches"
    widths = [np.mean([study[i].stderr for study in found]) for i in (1, 2)]  # type: ignore[union-attr]
    assert widths[1] < 0.75 * widths[0], "confirmation knows more"


def test_equal_files_in_other_launches_agree() -> None:
    """One int8 file in three processes on a quiet machine: each states 0.005, and no two agree. As
    the search states them, they do; confirmed, the error is what they differ by.
    """
    seen = [Measurement(m, 0.0026, 60, "x") for m in (0.675, 0.601, 0.658)]
    stated = [random_effects([m], PRIOR) for m in seen]
    for one, other in itertools.combinations(range(3), 2):
        assert not overlap(seen[one], seen[other])
        assert overlap(stated[one], stated[other])
    mean = random_effects(seen, PRIOR)
    assert mean.mean == pytest.approx(0.645, abs=0.001)
    assert 0.03 < 1.96 * mean.stderr < 0.06


def test_without_differences_between_launches_the_mean_is_the_precision_weighted_one() -> None:
    known = Spread(0.0, 1e9)
    launches = [Measurement(0.5, 0.01, 10), Measurement(0.51, 0.03, 10)]
    weights = [1 / m.stderr**2 for m in launches]
    mean = sum(w * m.mean for w, m in zip(weights, launches, strict=True)) / sum(weights)
    found = random_effects(launches, known)
    assert found.mean == pytest.approx(mean)
    assert found.stderr == pytest.approx(1 / math.sqrt(sum(weights)), rel=1e-3)
    assert found.n == 20


def test_a_single_launch_has_the_study_s_spread_and_its_own_error() -> None:
    spread = Spread(0.03, 1e9)
    found = random_effects([Measurement(0.5, 0.01, 10, "x", "h")], spread)
    assert found.stderr == pytest.approx(math.hypot(0.01, 0.03 * 0.5), rel=1e-3)
    assert replace(found, stderr=0.0) == Measurement(0.5, 0.0, 10, "x", "h")


def test_student_s_t() -> None:
    quantiles = {3: 3.182, 5: 2.571, 8: 2.306, 20: 2.086, 1000: 1.962}
    for dof, quantile in quantiles.items():
        assert Spread(0.0, dof).student * 1.96 == pytest.approx(quantile, rel=0.01)


def test_the_spread_is_shrunk_towards_what_is_usual() -> None:
    quiet = of_equals([Measurement(1.0, 0.001)] * LAUNCHES)
    loud = of_equals([Measurement(m, 0.001) for m in (0.9, 1.1, 1.15)])
    assert quiet.sd == pytest.approx(LEAST)
    assert LEAST < PRIOR.sd < loud.sd < 0.12
    assert quiet.dof == loud.dof == PRIOR.dof + LAUNCHES


def test_the_untouched_model_s_trial_says_what_launches_differ_by() -> None:
    launches = [
        {"latency_ratio": Measurement(m, 0.002, 20), "latency_ms": Measurement(2.0, 0.01, 100)}
        for m in (1.05, 0.93, 1.04)
    ]
    found = of_itself(launches)
    assert found["latency_ratio"].mean == pytest.approx(1.0, abs=0.01)
    spread = of_equals([launch["latency_ratio"] for launch in launches])
    assert spread_by(found["latency_ratio"]).sd == pytest.approx(spread.sd, rel=0.01)
    assert found["latency_ms"].stderr > 0.03 * 2.0
    assert spread_by(Measurement(1.0, 0.0005)).sd == LEAST, "one launch alone shows nothing"


def test_only_what_is_timed_is_put_together() -> None:
    one = {
        "quality": Measurement(0.9, 0.01, 100),
        "latency_ratio": Measurement(0.5, 0.001, 20),
        "memory_mb": Measurement(10.0),
    }
    other = {"latency_ratio": Measurement(0.6, 0.001, 20), "memory_mb": Measurement(12.0)}
    found = together([one, other], PRIOR)
    assert found["quality"] == one["quality"]
    assert found["latency_ratio"].mean == pytest.approx(0.55, abs=0.001)
    assert found["memory_mb"].mean == 11.0
    assert found["memory_mb"].stderr == pytest.approx(1.0)
