"""The error of repeating the last season in the training series, which MASE is in units of."""

from __future__ import annotations

import torch
from torch import Tensor

from petra.core.errors import ConfigError, DataError
from petra.core.text import shown
from petra.tasks.data import Split
from petra.tasks.inputs import Inputs, named
from petra.tasks.tensors import as_tensor

_BATCH = 1024
_REMEDY = "give it: scale=, the mean of |y[t] - y[t - season]| of each channel; or metric='mae'"


def naive_error(train: Split, season: int, given: object = None) -> tuple[float, ...]:
    """The mean of |y[t] - y[t - season]| of each channel over the training windows (Hyndman &
    Koehler 2006, equation for seasonal series), or what is `given`, checked: a number for each
    channel, or one for all.

    Within targets (n, channels, horizon) where a season ends before they do. Else y[t - season] is
    taken from the one input (n, channels, length) of the same channels, which has to be in the
    targets' unit. Every step counts as often as windows have it. Raises DataError where neither
    is long enough or a channel never changes, ConfigError for a scale that is none.
    """
    if given is not None:
        return _given(given, train)
    total = steps = torch.zeros((), dtype=torch.float64)
    for inputs, target in train.batches(_BATCH):
        series = _series(inputs, target, season)
        change = (series[..., season:] - series[..., :-season]).abs()
        total = total + change.nansum((0, 2))
        steps = steps + (~change.isnan()).sum((0, 2))
    found = total / steps
    still = (~(found > 0)).nonzero()
    if len(still):
        raise DataError(
            f"train split: channel {int(still[0])} does not change in a season of {season}: MASE,"
            " which is in units of that change, is not defined",
            hint=_REMEDY,
        )
    return tuple(found.tolist())


def _series(inputs: Inputs, target: Tensor, season: int) -> Tensor:
    """Steps in a row, (n, channels, more than a season)."""
    if target.ndim != 3:
        raise DataError(
            f"train split: targets have shape {tuple(target.shape)}",
            hint="targets of forecasts are (n, channels, horizon); of one series:"
            " targets.unsqueeze(1)",
        )
    if target.shape[2] > season:
        return target.double()
    past = [t for t in named(inputs).values() if _precedes(t, target)]
    if len(past) != 1 or past[0].shape[2] < season:
        raise DataError(
            f"train split: a season of {season} steps is longer than targets of"
            f" {target.shape[2]}, and no input goes back so far in their channels",
            hint=_REMEDY,
        )
    return torch.cat([past[0][..., -season:], target], 2).double()


def _precedes(t: Tensor, target: Tensor) -> bool:
    return t.is_floating_point() and t.ndim == 3 and t.shape[:2] == target.shape[:2]


def _given(given: object, train: Split) -> tuple[float, ...]:
    _, target = next(iter(train.batches(1)))
    channels = target.shape[1] if target.ndim == 3 else 1
    numbers = as_tensor(given, what="scale").double().flatten()
    if len(numbers) not in (1, channels) or not ((numbers > 0) & numbers.isfinite()).all():
        raise ConfigError(
            f"scale: got {shown(given)}",
            hint=f"a positive number for each of the {channels} channels, or one for all",
        )
    return tuple(numbers.expand(channels).tolist())
