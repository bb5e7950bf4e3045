"""Windows of a long series: what was, and what followed, parted by time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from petra.core.errors import ConfigError, DataError
from petra.tasks.tensors import as_tensor

Pair = tuple[np.ndarray, np.ndarray]

SHARES = (0.6, 0.8, 1.0)


def windows(
    series: Any,
    *,
    context: int,
    horizon: int,
    stride: int | tuple[int, int, int] = 1,
    borders: Sequence[int] | None = None,
) -> tuple[Pair, Pair, Pair]:
    """Train, val and test of a series (time, channels), or (time,) of one channel, for
    `petra.forecasting`: contexts float32 (n, channels, context) and the `horizon` steps that
    followed each, (n, channels, horizon).

    borders: the steps at which train, val and test end, by default 60, 80 and 100% of all. The
    forecasts of a part lie within it; contexts reach back into the part before, as they will when
    the model is used. stride: steps from one window to the next, one for all or one for each part.
    Contexts may have gaps (NaN), which a `Normalise` fills; windows that lack a value to predict
    are left out. Costs (context + horizon) / stride times the memory of the series. Raises
    DataError for parts too short for a window.
    """
    values = as_tensor(series, what="windows: the series").float().numpy()
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or not values.size:
        raise DataError(
            f"windows: the series has shape {values.shape}", hint="(time, channels), or (time,)"
        )
    for name, number in (("context", context), ("horizon", horizon)):
        if number < 1:
            raise ConfigError(f"{name}: {number!r}", hint="at least one step")
    strides = (stride,) * 3 if isinstance(stride, int) else tuple(stride)
    if len(strides) != 3 or min(strides) < 1:
        raise ConfigError(f"stride: {stride!r}", hint="steps from 1: one number, or one per part")
    ends = _ends(len(values), borders)
    starts = (0, *ends[:-1])
    train, val, test = (
        _part(values, name, first, end, (context, horizon), every)
        for name, first, end, every in zip(
            ("train", "val", "test"), starts, ends, strides, strict=True
        )
    )
    return train, val, test


def _ends(length: int, borders: Sequence[int] | None) -> tuple[int, ...]:
    if borders is None:
        return tuple(int(share * length) for share in SHARES)
    ends = tuple(borders)
    if len(ends) != 3 or not 0 < ends[0] < ends[1] < ends[2] <= length:
        raise ConfigError(
            f"borders: {ends} of {length} steps",
            hint="three rising step numbers: where train, val and test end",
        )
    return ends


def _part(
    values: np.ndarray, name: str, first: int, end: int, sizes: tuple[int, int], every: int
) -> Pair:
    """Windows whose forecasts lie in [first, end)."""
    context, horizon = sizes
    begin = max(0, first - context)
    if end - begin < context + horizon:
        raise DataError(
            f"windows: {name} has {end - begin} steps, a window {context + horizon}",
            hint="shorten context or horizon, or move the borders",
        )
    views = np.lib.stride_tricks.sliding_window_view(values[begin:end], context + horizon, axis=0)[
        ::every
    ]
    known = ~np.isnan(views[..., context:]).any(axis=(1, 2))
    if not known.any():
        raise DataError(
            f"windows: all of {name} lack a value to predict", hint="fill gaps, or predict less"
        )
    before, after = views[..., :context], views[..., context:]
    return np.ascontiguousarray(before[known]), np.ascontiguousarray(after[known])
