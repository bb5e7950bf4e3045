"""Structured pruning: importance by loops, allocation by brute force, and cuts by the function they
must compute.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from petra.methods.prune import importance
from petra.methods.prune.allocate import MIN_SHARE, Candidate, keep_global, keep_per_layer, lowest
from petra.methods.prune.statistics import (
    mean_absolute_gradients,
)
from petra.methods.prune.structured import StructuredPrune
from petra.tasks.base import Task

# --- importance -----------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("dim", [0, 1])
def test_magnitude_is_the_norm_of_each_filter(p: float, dim: int) -> None:
    weight = torch.randn(4, 3, 2, 5)
    weight[1, 1] = 0
    got = importance.magnitude(weight, p=p, dim=dim)
    for c in range(weight.shape[dim]):
        values = [float(v) for v in weight.select(dim, c).flatten()]
        expected = (
            sum(v != 0 for v in values) if p == 0 else sum(abs(v) ** p for v in values) ** (1 / p)
        )
        assert float(got[c]) == pytest.approx(expected, rel=1e-5)


def test_taylor_sums_absolute_products_of_weight_and_gradient() -> None:
    weight, gradient = torch.randn(4, 3, 2), torch.randn(4, 3, 2)
    for dim in (0, 1):
        got = importance.taylor(weight, gradient, dim=dim)
        for c in range(weight.shape[dim]):
            pairs = zip(
                weight.select(dim, c).flatten(), gradient.select(dim, c).flatten(), strict=True
            )
            assert float(got[c]) == pytest.approx(
                sum(abs(float(w) * float(g)) for w, g in pairs), rel=1e-5
            )


def test_bn_scale_ignores_the_sign() -> None:
    assert importance.bn_scale(torch.tensor([-2.0, 0.5])).tolist() == [2.0, 0.5]


def test_coupled_scores_are_means_of_relative_scores() -> None:
    # Members of very different scale count alike; channel 2 is covered by the first member only.
    got = importance.coupled(
        [(torch.tensor([1.0, 2.0, 3.0]), [0, 1, 2]), (torch.tensor([300.0, 100.0]), [0, 1])], 3
    )
    assert got.tolist() == pytest.approx([(0.5 + 1.5) / 2, (1.0 + 0.5) / 2, 1.5])
    assert importance.relative(torch.zeros(3)).tolist() == [0, 0, 0]


def test_taylor_averages_over_batches_and_counts_items(
    digits_problem: tuple[nn.Module, Task],
) -> None:
    model, task = digits_problem
    model = copy.deepcopy(model)
    found, items = mean_absolute_gradients(model, task, batches=2, seed=3)
    assert items == 128
    layer = model.get_submodule("body.0.0")
    expected = torch.zeros(len(layer.weight))
    model.eval()
    for (x, y), _ in zip(task.train.batches(64, seed=3), range(2), strict=False):
        loss = nn.functional.cross_entropy(model(x), y, label_smoothing=0.1)
        (gradient,) = torch.autograd.grad(loss, [layer.weight])
        expected += (layer.weight * gradient).abs().flatten(1).sum(1).detach() / 2
    torch.testing.assert_close(
        importance.taylor(layer.weight.detach(), found["body.0.0.weight"]), expected
    )


# --- allocation -----------------------------------------------------------------------------------


def random_candidates(seed: int, *, multiple: int = 1) -> list[Candidate]:
    g = torch.Generator().manual_seed(seed)
    widths = (torch.randint(2, 12, (5,), generator=g) * multiple).tolist()
    return [Candidate(torch.rand(w, generator=g) * (i + 1), w) for i, w in enumerate(widths)]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("round_to", [1, 4, 8, 16])
def test_kept_widths_are_multiples_above_the_floor_or_untouched(seed: int, round_to: int) -> None:
    candidates = random_candidates(seed, multiple=3)  # widths that are no multiples of the rounding
    ratio = 0.05 + 0.045 * seed
    for keep in (keep_global, keep_per_layer):
        for c, k in zip(candidates, keep(candidates, ratio=ratio, round_to=round_to), strict=True):
            assert k == c.remaining or (
                k % round_to == 0 and k >= max(1, MIN_SHARE * c.original) and k < c.remaining
            )


@pytest.mark.parametrize("seed", range(20))
def test_per_layer_counts_are_the_nearest_multiple(seed: int) -> None:
    candidates = random_candidates(seed, multiple=4)
    for c, k in zip(candidates, keep_per_layer(candidates, ratio=0.4, round_to=4), strict=True):
        best = min(range(4, c.original + 1, 4), key=lambda m: (abs(m - 0.6 * c.original), -m))
        assert k == max(best, c.floor(4))


def test_the_highest_ratio_of_the_search_is_within_reach_of_every_layer() -> None:
    ratio = StructuredPrune.card().parameter("ratio")
    assert ratio is not None
    assert (ratio.domain.low, ratio.domain.high) == (0.05, 0.95)
    widths = range(2, 600)
    candidates = [Candidate(torch.rand(n), n) for n in widths]
    for n, kept in zip(widths, keep_per_layer(candidates, ratio=0.95, round_to=1), strict=True):
        assert kept == max(1, math.floor(0.05 * n + 0.5))
    wide = candidates[40:]
    total = sum(c.original for c in wide)
    assert abs(total - sum(keep_global(wide, ratio=0.95, round_to=1)) - 0.95 * total) <= 0.5


@pytest.mark.parametrize("seed", range(20))
def test_global_ranking_removes_exactly_the_lowest_scores(seed: int) -> None:
    candidates = [
        Candidate(c.scores + 0.01, c.original) for c in random_candidates(seed, multiple=10)
    ]
    total = sum(c.original for c in candidates)
    kept = keep_global(candidates, ratio=0.1, round_to=1)
    everything = sorted((float(s), i) for i, c in enumerate(candidates) for s in c.scores)
    gone = everything[: int(0.1 * total + 0.5)]
    expected = [c.original - sum(i == j for _, j in gone) for i, c in enumerate(candidates)]
    floors = [c.floor(1) for c in candidates]
    if all(e >= f for e, f in zip(expected, floors, strict=True)):
        assert kept == expected
    else:
        assert all(k >= f for k, f in zip(kept, floors, strict=True))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("round_to", [4, 8])
def test_global_total_is_within_half_a_block(seed: int, round_to: int) -> None:
    g = torch.Generator().manual_seed(seed)
    candidates = [Candidate(torch.rand(8 * n, generator=g), 8 * n) for n in (4, 6, 8, 16)]
    total = sum(c.original for c in candidates)
    for ratio in (0.1, 0.25, 0.5):
        removed = total - sum(keep_global(candidates, ratio=ratio, round_to=round_to))
        assert abs(removed - ratio * total) <= round_to / 2 + 0.5


def test_global_ranking_counts_what_earlier_cuts_removed() -> None:
    half_gone = [Candidate(torch.rand(10), 20), Candidate(torch.rand(20), 20)]
    assert keep_global(half_gone, ratio=0.25, round_to=1) == [10, 20]
    assert sum(keep_global(half_gone, ratio=0.5, round_to=1)) == 20


def test_units_count_for_their_channels() -> None:
    candidates = [Candidate(torch.rand(8), 8, size=4), Candidate(torch.rand(32), 32)]
    kept = keep_global(candidates, ratio=0.25, round_to=1)
    assert abs(4 * kept[0] + kept[1] - 48) <= 2


def test_a_layer_is_left_alone_where_no_multiple_is_nearer() -> None:
    assert keep_per_layer([Candidate(torch.rand(24), 24)], ratio=0.05, round_to=16) == [24]
    assert keep_per_layer([Candidate(torch.rand(24), 24)], ratio=0.3, round_to=16) == [16]


def test_lowest_breaks_ties_by_position() -> None:
    assert lowest(torch.tensor([3.0, 1.0, 1.0, 0.0, 1.0]), 3) == [1, 2, 3]
