"""Rank rules by scanning all ranks, each with a case that the inverted rule (keep N - k) gets
wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import Tensor

from petra.methods.lowrank.factorize import svd
from petra.methods.lowrank.rank import (
    allocate,
    rank_by_absolute_sum,
    rank_by_energy,
    rank_by_explained_variance,
    rank_by_ratio,
    ranks_by_quantile,
)

TAUS = (0.01, 0.5, 0.9, 0.99, 1.0)
N = range(1, 13)
ONE_DOMINANT = torch.tensor([10.0] + [0.1] * 9)


def spectrum(seed: int, n: int = 12) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, generator=g).pow(3).sort(descending=True).values


def smallest(sufficient: Iterable[bool]) -> int:
    """The first rank, counted from one, that is sufficient."""
    return list(sufficient).index(True) + 1


@pytest.mark.parametrize("seed", range(30))
def test_share_rules_are_the_smallest_sufficient_rank(seed: int) -> None:
    s = spectrum(seed)
    values = [float(v) for v in s.double()]
    squares = [v * v for v in values]
    variance = 0.7 * sum(squares)
    for tau in TAUS:
        least = tau * (1 - 1e-12)
        assert rank_by_energy(s, tau) == smallest(
            sum(squares[:k]) >= least * sum(squares) for k in N
        )
        assert rank_by_absolute_sum(s, tau) == smallest(
            sum(values[:k]) >= least * sum(values) for k in N
        )
        assert rank_by_explained_variance(s, tau, variance) == smallest(
            sum(squares[k:]) <= (1 - tau) * variance + 1e-12 * sum(squares) for k in N
        )


def test_share_rules_are_not_inverted() -> None:
    """One dominant value of ten: rank 1 or 2, where the inverted rules say 8 or 9."""
    s = ONE_DOMINANT
    assert rank_by_energy(s, 0.9) == 1
    assert rank_by_explained_variance(s, 0.9, float(s.square().sum())) == 1
    assert rank_by_absolute_sum(s, 0.9) == 1  # 10 of 10.9
    assert rank_by_absolute_sum(s, 0.92) == 2
    flat = torch.ones(10)
    assert rank_by_energy(flat, 0.9) == rank_by_absolute_sum(flat, 0.9) == 9
    assert rank_by_explained_variance(flat, 0.9, 10.0) == 9


def test_shares_at_the_edges() -> None:
    for rule in (
        rank_by_energy,
        rank_by_absolute_sum,
        lambda s, tau: rank_by_explained_variance(s, tau, 0.0),
    ):
        assert rule(torch.zeros(4), 0.9) == 1
        assert rule(torch.tensor([1.0, 0.0, 0.0]), 1.0) == 1
        assert rule(torch.tensor([1.0, 1.0, 0.0]), 1.0) == 2


def test_explained_variance_of_a_matrix_does_not_count_its_mean() -> None:
    """A large constant takes the first triplet: nearly all energy, no variance."""
    g = torch.Generator().manual_seed(0)
    W = torch.randn(10, 12, generator=g) + 50
    s = svd(W).s
    variance = float((W - W.mean(1, keepdim=True)).square().sum())
    assert rank_by_energy(s, 0.9) == 1
    k = rank_by_explained_variance(s, 0.9, variance)
    f = svd(W.double())

    def r2(k: int) -> float:
        return 1 - float((W - f.truncate(k).compose()).square().sum()) / variance

    assert k == smallest(r2(k) >= 0.9 for k in range(1, 11))
    assert k > 4


def test_ratio_rule() -> None:
    assert [rank_by_ratio(10, r) for r in (0.0, 0.01, 0.25, 0.5, 0.9, 1.0)] == [1, 1, 3, 5, 9, 10]


@pytest.mark.parametrize("seed", range(10))
def test_quantile_rule_by_sorting_all_values(seed: int) -> None:
    spectra = [spectrum(seed, 5), 100 * spectrum(seed + 50, 9), spectrum(seed + 100, 3)]
    for q in (0.0, 0.3, 0.7, 1.0):
        pooled = sorted(float(v / s[0]) for s in spectra for v in s.double())
        place = q * (len(pooled) - 1)
        low = int(place)
        high = min(low + 1, len(pooled) - 1)
        threshold = pooled[low] + (place - low) * (pooled[high] - pooled[low])
        expected = [
            max(1, sum(float(v / s[0]) >= threshold - 1e-12 for v in s.double())) for s in spectra
        ]
        assert ranks_by_quantile(spectra, q) == expected


def test_quantile_rule_takes_from_steep_layers_and_is_not_inverted() -> None:
    flat, steep = torch.ones(10) - 0.01 * torch.arange(10), ONE_DOMINANT
    assert ranks_by_quantile([flat, steep], 0.5) == [9, 1]  # inverted: [1, 9]
    assert ranks_by_quantile([flat, 1e6 * steep], 0.5) == [9, 1]  # scale of a layer does not matter


@pytest.mark.parametrize("seed", range(20))
def test_allocation_against_all_combinations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs = [[int(c) for c in rng.integers(1, 40, size=rng.integers(1, 5))] for _ in range(4)]
    distances = [[float(d) for d in rng.random(len(c))] for c in costs]
    for share in (0.3, 0.6, 1.0):
        budget = float(round(share * sum(map(max, costs))))
        feasible = [
            picks
            for picks in itertools.product(*(range(len(c)) for c in costs))
            if sum(c[j] for c, j in zip(costs, picks, strict=True)) <= budget
        ]
        found = allocate(costs, distances, budget)
        if not feasible:
            assert found is None
            continue

        def total(picks: tuple[int, ...]) -> float:
            return sum(d[j] for d, j in zip(distances, picks, strict=True))

        assert found is not None
        assert tuple(found) in feasible
        assert total(tuple(found)) == pytest.approx(min(map(total, feasible)), abs=1e-9)


def test_allocation_cuts_where_it_hurts_least() -> None:
    """Two layers of equal cost: the sensitive one stays dense. An inverted measure would cut it."""
    costs = [[100, 50], [100, 50]]
    assert allocate(costs, [[0.0, 5.0], [0.0, 0.1]], 150.0) == [0, 1]
    assert allocate(costs, [[0.0, 0.1], [0.0, 5.0]], 150.0) == [1, 0]
    assert allocate(costs, [[0.0, 0.1], [0.0, 5.0]], 200.0) == [0, 0]
    assert allocate(costs, [[0.0, 0.1], [0.0, 5.0]], 100.0) == [1, 1]
    assert allocate(costs, [[0.0, 0.1], [0.0, 5.0]], 99.0) is None


def test_allocation_never_exceeds_the_budget_by_rounding() -> None:
    rng = np.random.default_rng(0)
    costs = [[int(c) for c in rng.integers(1, 10**6, 3)] for _ in range(60)]
    distances = [list(rng.random(3)) for _ in range(60)]
    budget = 0.5 * sum(map(sum, costs)) / 3 + 0.5 * sum(map(min, costs))
    picks = allocate(costs, distances, budget)
    assert picks is not None
    assert sum(c[j] for c, j in zip(costs, picks, strict=True)) <= budget
    cheapest = float(sum(map(min, costs)))
    tight = allocate(costs, distances, cheapest)
    assert tight is not None
    assert sum(c[j] for c, j in zip(costs, tight, strict=True)) == cheapest
