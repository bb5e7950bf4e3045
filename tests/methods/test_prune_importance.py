"""Importance scores against loops over single numbers, and against what removing a channel really
costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from ranking_parts import EXAMPLES
from torch import Tensor

from petra.methods.prune import importance
from petra.methods.prune.allocate import Candidate, keep_global


def random_filters(seed: int) -> np.ndarray:
    """Channels first, with a repeated filter and one of zeros."""
    weight = np.random.default_rng(seed).normal(size=(7, 3, 2))
    weight[4] = weight[1]
    weight[5] = 0
    return weight


def as_tensor(weight: np.ndarray, dim: int) -> Tensor:
    return torch.tensor(np.moveaxis(weight, 0, dim))


# --- one layer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", EXAMPLES)
@pytest.mark.parametrize("dim", [0, 1])
def test_hessian_is_half_the_curvature_times_the_squared_weights(seed: int, dim: int) -> None:
    weight, curvature = (
        random_filters(seed),
        np.random.default_rng(seed + 100).uniform(size=(7, 3, 2)),
    )
    expected = [
        sum(0.5 * curvature[(c, *at)] * weight[(c, *at)] ** 2 for at in np.ndindex(3, 2))
        for c in range(7)
    ]
    got = importance.hessian(as_tensor(weight, dim), as_tensor(curvature, dim), dim=dim)
    assert got.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("seed", EXAMPLES)
@pytest.mark.parametrize("dim", [0, 1])
def test_lamp_divides_by_everything_that_is_not_smaller(seed: int, dim: int) -> None:
    weight = random_filters(seed)
    squared = [sum(w * w for w in f.flat) for f in weight]
    expected = [
        s / sum(t for j, t in enumerate(squared) if (t, j) >= (s, i)) for i, s in enumerate(squared)
    ]
    got = importance.lamp(as_tensor(weight, dim), dim=dim)
    assert got.tolist() == pytest.approx(expected)
    assert float(got.max()) == pytest.approx(1.0)
    assert squared[int(got.argmax())] == max(squared), (
        "an inverted sum gives 1 to the smallest filter"
    )


def test_lamp_compares_layers_of_any_scale() -> None:
    """Both layers keep the same filters when one of them is a thousand times the other; norms would
    empty it.
    """
    weight = torch.tensor(random_filters(0))[:5] + 1e-3
    lamp = [importance.lamp(weight), importance.lamp(1e-3 * weight)]
    torch.testing.assert_close(*lamp)
    assert keep_global([Candidate(s, 5) for s in lamp], ratio=0.4, round_to=1) == [3, 3]
    norms = [Candidate(importance.magnitude(w), 5) for w in (weight, 1e-3 * weight)]
    assert keep_global(norms, ratio=0.4, round_to=1) == [5, 1]


def test_lamp_of_nothing_is_nothing() -> None:
    assert importance.lamp(torch.zeros(3, 2)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("seed", EXAMPLES)
@pytest.mark.parametrize("dim", [0, 1])
def test_fpgm_sums_the_distances_to_the_other_filters(seed: int, dim: int) -> None:
    weight = random_filters(seed)
    expected = [
        sum(
            math.sqrt(sum((a - b) ** 2 for a, b in zip(f.flat, g.flat, strict=True)))
            for g in weight
        )
        for f in weight
    ]
    assert importance.fpgm(as_tensor(weight, dim), dim=dim).tolist() == pytest.approx(expected)


def test_fpgm_gives_up_the_filter_in_the_middle_not_the_smallest() -> None:
    weight = torch.tensor([[5.0, 5.0], [8.0, 5.0], [1.0, 4.0], [5.0, 9.0], [4.0, 1.0]])
    assert int(importance.fpgm(weight).argmin()) == 0
    assert int(importance.magnitude(weight).argmin()) != 0


@pytest.mark.parametrize("seed", EXAMPLES)
@pytest.mark.parametrize("bins", [2, 5, 32])
def test_entropy_of_a_histogram_per_channel(seed: int, bins: int) -> None:
    x = np.random.default_rng(seed).normal(size=(50, 4)) ** 3
    x[:, 2] = x[:, 2] > 0.5
    x[:, 3] = 0.1
    expected = []
    for channel in x.T:
        counts, _ = np.histogram(channel, bins=bins, range=(channel.min(), channel.max()))
        shares = [c / len(channel) for c in counts if c]
        expected.append(
            -sum(s * math.log(s) for s in shares) if channel.min() < channel.max() else 0.0
        )
    got = importance.activation_entropy(torch.tensor(x), bins=bins)
    assert got.tolist() == pytest.approx(expected, abs=1e-12)
    assert float(got[3]) == 0
    assert float(got.max()) <= math.log(bins) + 1e-12


# --- several layers -------------------------------------------------------------------------------


MEMBERS = [
    ([3.0, 1.0, 2.0], [0, 1, 2]),
    ([10.0, 30.0], [2, 0]),
    ([0.5, 0.25], [1, 3]),
]


@pytest.mark.parametrize("kind", importance.REDUCTIONS)
@pytest.mark.parametrize("relative", [True, False])
def test_members_are_reduced_channel_by_channel(kind: str, relative: bool) -> None:
    """Channel 3 has one member, channel 4 none."""

    def of(values: list[float]) -> list[float]:
        return [v * len(values) / sum(values) for v in values] if relative else values

    found: list[list[float]] = [
        [of(values)[channels.index(c)] for values, channels in MEMBERS if c in channels]
        for c in range(5)
    ]
    reduce: dict[str, Callable[[list[float]], float]] = {
        "sum": sum,
        "mean": lambda v: sum(v) / len(v),
        "max": max,
        "prod": math.prod,
        "first": lambda v: v[0],
    }  # fmt: skip
    expected = [reduce[kind](v) if v else 0.0 for v in found]
    members = [(torch.tensor(v), c) for v, c in MEMBERS]
    got = (importance.coupled if relative else importance.reduced)(members, 5, kind)
    assert got.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("seed", EXAMPLES)
def test_normalisations_keep_the_order_and_fix_one_statistic(seed: int) -> None:
    values = np.random.default_rng(seed).uniform(0, 5, size=9).tolist()
    mean = sum(values) / 9
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / 9)
    expected = {
        "none": values,
        "sum": [v / sum(values) for v in values],
        "mean": [v / mean for v in values],
        "max": [v / max(values) for v in values],
        "gaussian": [(v - mean) / deviation for v in values],
    }
    assert set(expected) == set(importance.NORMALISATIONS)
    for kind, numbers in expected.items():
        got = importance.normalised(torch.tensor(values, dtype=torch.float64), kind)
        assert got.tolist() == pytest.approx(numbers), kind
        assert got.argsort().tolist() == np.argsort(values).tolist()


@pytest.mark.parametrize("kind", importance.NORMALISATIONS)
def test_scores_that_are_all_zero_stay_zero(kind: str) -> None:
    assert importance.normalised(torch.zeros(3), kind).tolist() == [0, 0, 0]


def test_unknown_names_are_errors() -> None:
    with pytest.raises(ValueError, match="median"):
        importance.normalised(torch.ones(2), "median")
    with pytest.raises(ValueError, match="median"):
        importance.reduced([(torch.ones(2), [0, 1])], 2, "median")
