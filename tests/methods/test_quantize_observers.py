"""Ranges of activations: percentile and squared error against brute force on the values
themselves.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from petra.methods.quantize.observers import (
    MseObserver,
    PercentileObserver,
    mse_range,
    percentile_range,
    squared_error,
)

SPEC = {
    "dtype": torch.uint8,
    "quant_min": 0,
    "quant_max": 255,
    "qscheme": torch.per_tensor_affine,
    "eps": 1e-8,
}


def heavy_tailed(n: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    values = torch.randn(n, generator=g)
    values[: n // 1000] *= 30
    return values


def end_to_end(values: Tensor, low: float, high: float, levels: int = 256) -> float:
    """Squared error of affine rounding, one value at a time."""
    step = (high - low) / (levels - 1)
    zero = round(-low / step)
    total = 0.0
    for v in values.tolist():
        code = min(max(round(v / step) + zero, 0), levels - 1)
        total += ((code - zero) * step - v) ** 2
    return total


def range_of(scale: Tensor, zero_point: Tensor, levels: int = 256) -> tuple[float, float]:
    s, z = float(scale), int(zero_point)
    return -z * s, (levels - 1 - z) * s


def test_squared_error_is_that_of_rounding_each_value() -> None:
    values = heavy_tailed(400).double()
    lows, highs = torch.tensor([-3.0, -40.0, 0.0]).double(), torch.tensor([2.0, 35.0, 1.0]).double()
    got = squared_error(values, torch.ones(400), lows, highs, 256)
    expected = [
        end_to_end(values, float(low), float(high)) for low, high in zip(lows, highs, strict=True)
    ]
    assert got.tolist() == pytest.approx(expected, rel=1e-6)


def test_counts_weigh_values() -> None:
    values = torch.tensor([-1.0, 0.3, 2.0]).double()
    counts = torch.tensor([2.0, 5.0, 1.0])
    ends = torch.tensor([-1.0]).double(), torch.tensor([1.5]).double()
    repeated = values.repeat_interleave(counts.long())
    assert float(squared_error(values, counts, *ends, 16)) == pytest.approx(
        float(squared_error(repeated, torch.ones(8), *ends, 16))
    )


def test_percentile_leaves_out_the_share_it_may() -> None:
    counts, edges = torch.tensor([1.0, 0, 7, 80, 10, 2]), torch.arange(7.0)
    assert percentile_range(counts, edges, 0.0) == (0.0, 6.0)
    # The first value may go, nothing above.
    assert percentile_range(counts, edges, 0.01) == (
        2.0,
        6.0,
    )
    assert percentile_range(counts, edges, 0.02) == (2.0, 5.0)
    assert percentile_range(counts, edges, 0.12) == (3.0, 4.0)


@pytest.mark.parametrize("batches", [1, 7])
def test_percentile_observer_agrees_with_sorting(batches: int) -> None:
    values = heavy_tailed(70_000)
    observer = PercentileObserver(**SPEC)
    for part in values.chunk(batches):
        assert observer(part) is part
    low, high = range_of(*observer.calculate_qparams())
    expected = np.quantile(values.numpy(), [1e-4, 1 - 1e-4])
    step = (high - low) / 255
    assert [low, high] == pytest.approx(expected, abs=2 * step)
    assert high < 0.9 * float(values.max())


@pytest.mark.parametrize("levels", [16, 256])
def test_mse_observer_is_as_good_as_any_range(levels: int) -> None:
    values = heavy_tailed(4_000)
    observer = MseObserver(**{**SPEC, "quant_max": levels - 1})
    for part in values.chunk(5):
        observer(part)
    got = end_to_end(values, *range_of(*observer.calculate_qparams(), levels), levels)
    lowest, highest = float(values.min()), float(values.max())
    grid = torch.cartesian_prod(
        lowest * torch.linspace(1, 0.02, 30), highest * torch.linspace(1, 0.02, 30)
    ).double()
    best = float(
        squared_error(values.double(), torch.ones(4_000), grid[:, 0], grid[:, 1], levels).min()
    )
    assert got <= 1.02 * best
    if levels == 16:  # with few codes, resolution is worth more than the outliers
        assert got < 0.9 * end_to_end(values, lowest, highest, levels)


def test_mse_range_of_values_on_the_grid_is_the_whole_range() -> None:
    values = torch.arange(0, 256).double() / 10
    assert mse_range(values, torch.ones(256), 0.0, 25.5, 256) == (0.0, 25.5)


@pytest.mark.parametrize("observer", [PercentileObserver, MseObserver])
def test_ranges_survive_growth_and_odd_values(observer: type[PercentileObserver]) -> None:
    seen = observer(**SPEC)
    seen(torch.zeros(10))
    seen(torch.tensor([0.001, float("inf"), float("nan")]))
    for _ in range(3):
        seen(torch.rand(1000) * 100)
    assert seen.counts.sum() == 3011
    low, high = range_of(*seen.calculate_qparams())
    assert low == 0.0  # nothing negative was seen
    assert 95 < high <= 100.5


def test_an_observer_that_saw_nothing_does_not_fail() -> None:
    scale, zero_point = PercentileObserver(**SPEC).calculate_qparams()
    assert float(scale) == 1.0
    assert int(zero_point) == 0
