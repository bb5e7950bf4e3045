"""Windows of a series, held to a loop; no forecast of one part is seen by another's training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from petra import data
from petra.core.errors import ConfigError, DataError, PetraError


@pytest.mark.parametrize("stride", [1, 3, (2, 4, 1)])
def test_windows_agree_with_a_loop(stride: Any) -> None:
    series = np.arange(200, dtype=np.float32).reshape(100, 2)
    parts = data.windows(series, context=8, horizon=5, stride=stride, borders=(60, 80, 95))
    strides = (stride,) * 3 if isinstance(stride, int) else stride
    for (x, y), start, end, every in zip(parts, (0, 60, 80), (60, 80, 95), strides, strict=True):
        begins = range(max(0, start - 8), end - 13 + 1, every)
        np.testing.assert_array_equal(x, [series[b : b + 8].T for b in begins])
        np.testing.assert_array_equal(y, [series[b + 8 : b + 13].T for b in begins])
        assert x.flags.c_contiguous
        assert y.flags.c_contiguous
        assert y.min() >= series[start].min()
        assert y.max() <= series[end - 1].max()


def test_gaps_may_be_seen_and_are_not_predicted() -> None:
    series = np.arange(100.0)
    series[30] = np.nan
    (x, y), val, _ = data.windows(series, context=4, horizon=2)
    assert not np.isnan(y).any()
    assert np.isnan(x).any()
    assert len(y) == 60 - 6 + 1 - 2
    assert val[1][0, 0].tolist() == [60, 61]


WRONG: list[tuple[Any, dict[str, Any], type[PetraError], str]] = [
    (np.zeros((9, 2, 2)), {}, DataError, "the series has shape"),
    (np.zeros((0, 2)), {}, DataError, "the series has shape"),
    (np.zeros(40), {"context": 0}, ConfigError, "context: 0"),
    (np.zeros(40), {"horizon": -1}, ConfigError, "horizon: -1"),
    (np.zeros(40), {"horizon": 9}, DataError, "val has 12 steps, a window 13"),
    (np.zeros(40), {"stride": 0}, ConfigError, "stride: 0"),
    (np.zeros(40), {"stride": (1, 2)}, ConfigError, "stride"),
    (np.zeros(40), {"borders": (20, 30, 41)}, ConfigError, "of 40 steps"),
    (np.zeros(40), {"borders": (30, 20, 40)}, ConfigError, "borders"),
    (np.full(40, np.nan), {}, DataError, "all of train lack"),
    (["a"] * 40, {}, DataError, "are text"),
]


@pytest.mark.parametrize(("series", "options", "kind", "said"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_named(
    series: Any, options: dict[str, Any], kind: type[PetraError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        data.windows(series, **{"context": 4, "horizon": 2} | options)
