"""The unit that losses of values are in: by default the spread of the training targets."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from petra.core.errors import ConfigError
from petra.core.text import shown
from petra.tasks.data import Split
from petra.tasks.losses import Loss
from petra.tasks.value_losses import ValueLoss


def unit_of(given: object, train: Split) -> float:
    """What is `given`, checked; else the `spread` of the training targets. Raises ConfigError for
    what is no unit.
    """
    if given is None:
        return spread(train)
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < math.inf:
        raise ConfigError(
            f"unit: got {shown(given)}",
            hint="a number above 0, such as the standard deviation of the training targets",
        )
    return float(given)


def spread(train: Split) -> float:
    """Root of the variance of each value of a target, (n, ...), in the mean over an item's values:
    what the error is of a model that predicts the mean of each. Items with gaps do not count. 1
    where targets are not in memory, or all alike.
    """
    targets = train.targets()
    if targets is None:
        return 1.0
    values = targets.double().reshape(len(targets), -1)
    values = values[values.isfinite().all(1)]
    if not len(values):
        return 1.0
    alike = (values == values[:1]).all(0)  # whose variance may be a rounding, and then no unit
    variance = values.var(0, correction=0).masked_fill(alike, 0.0)
    return math.sqrt(float(variance.mean())) or 1.0


def in_unit(losses: Iterable[Loss], unit: float) -> tuple[Loss, ...]:
    """The losses, those of values in that unit."""
    return tuple(replace(one, unit=unit) if isinstance(one, ValueLoss) else one for one in losses)
