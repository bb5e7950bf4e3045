"""Scorers are values: each measures one number of how good predictions are, with its sampling
error, and describes it. The first of a task's scorers is *the* quality; the others are reported and
may be objectives or constraints by their name.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from petra.core.errors import ConfigError, DataError
from petra.core.measurement import Measurement
from petra.core.metric import ALIASES, METRICS, Metric, task_metric
from petra.core.text import shown
from petra.tasks.inputs import Outputs, main_output
from petra.tasks.losses import takes_outputs

GROUPS = 30  # of items, left out one after the other for a standard error


class Scorer(ABC):
    """Measures the predictions for a split. Made a frozen dataclass by those that derive from it.

    `every` says that it looks at other outputs than the one called ``logits``, or else the first:
    only outputs that some scorer looks at are written when an artifact is judged.
    """

    every: bool = False

    @property
    @abstractmethod
    def metric(self) -> Metric:
        """What it measures, for tables, figures and constraints: made by `task_metric`."""

    @abstractmethod
    def value(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> float:
        """The number: all outputs of the model by name, (n, ...) each, targets (n, ...), and what
        the n items are called, (n,) of int64: items of one name are not independent.

        Called hundreds of times where an artifact is compared with its model.
        """

    @abstractmethod
    def measure(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Measurement:
        """The number with its standard error over n items."""


class ItemScorer(Scorer, ABC):
    """The mean of a number that every item has, with its standard error."""

    @abstractmethod
    def items(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Tensor:
        """The number of each item, (n,)."""

    def value(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> float:
        return float(self.items(outputs, targets, ids).double().mean())

    def measure(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Measurement:
        found = self.items(outputs, targets, ids).double()
        n = len(found)
        return Measurement(float(found.mean()), float(found.std()) / n**0.5 if n > 1 else 0.0, n)


class ResampledScorer(Scorer, ABC):
    """A number without a formula for its error, which is found by the jackknife."""

    def measure(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Measurement:
        value = self.value(outputs, targets, ids)
        return Measurement(value, jackknife(self, outputs, targets, ids, value), len(targets))


def jackknife(
    scorer: Scorer, outputs: Outputs, targets: Tensor, ids: Tensor, value: float
) -> float:
    """Standard error of a number of n items: the jackknife that leaves out a group of items at a
    time (Efron & Stein 1981), of at most `GROUPS` groups. Items of one id are left out together.

    sqrt((g - 1) / g * sum of squared differences from their mean). Groups without which the number
    is undefined do not count; 0 where fewer than two are left. Costs g values.
    """
    names, number = torch.unique(ids, return_inverse=True)
    groups = min(GROUPS, len(names))
    found = []
    for group in range(groups if groups > 1 and math.isfinite(value) else 0):
        kept = number % groups != group
        part = {name: t[kept] for name, t in outputs.items()}
        found.append(scorer.value(part, targets[kept], ids[kept]))
    found = [v for v in found if math.isfinite(v)]
    if len(found) < 2:
        return 0.0
    mean = math.fsum(found) / len(found)
    spread = math.fsum((v - mean) ** 2 for v in found)
    return math.sqrt((len(found) - 1) / len(found) * spread)


@dataclass(frozen=True)
class FunctionScorer(ResampledScorer):
    """A function of the user's as a scorer: of the one output and the targets, or, where `every`,
    of all outputs by name, targets and ids. It returns a number, or a `Measurement`.
    """

    function: Callable[..., object]
    described: Metric
    every: bool = False

    @property
    def metric(self) -> Metric:
        return self.described

    def value(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> float:
        found = self._call(outputs, targets, ids)
        try:
            return float(found.mean if isinstance(found, Measurement) else found)  # type: ignore[arg-type]
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(
                f"the metric {self.metric.name} returned {type(found).__name__}: {error}",
                hint="it must return a number, or a petra.Measurement(mean, stderr, n)",
            ) from error

    def measure(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Measurement:
        found = self._call(outputs, targets, ids)
        if isinstance(found, Measurement):
            return found
        return super().measure(outputs, targets, ids)

    def _call(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> object:
        if self.every:
            return self.function(outputs, targets, ids)
        return self.function(main_output(outputs), targets)


def as_scorer(given: object, *, where: str, maximize: bool | None = None) -> Scorer:
    """A scorer from what a person gives: a `Scorer`, the name of a torchmetrics metric, or a
    function with the direction in which it is better.

    A function gets (prediction, targets); one whose first parameter is called ``outputs`` gets all
    outputs by name, targets and ids. Raises ConfigError for anything else.
    """
    if isinstance(given, Scorer):
        return given
    if isinstance(given, str):
        from petra.tasks.torchmetric import torch_metric

        return torch_metric(given, where=where)
    if not callable(given) or isinstance(given, type):
        raise ConfigError(
            f"{where}: got {shown(given)}",
            hint="allowed: the name of a metric, a function of (prediction, targets), or a Scorer",
        )
    if maximize is None:
        raise ConfigError(
            f"{where}: whether more or less of it is better is not said",
            hint="petra.scorer(function, maximize=True)",
        )
    return scorer(given, maximize=maximize)


def scorer(
    function: Callable[..., object],
    *,
    maximize: bool,
    name: str = "",
    title: str = "",
    unit: str = "",
    digits: int = 4,
) -> FunctionScorer:
    """A function as a scorer: `function(prediction, targets)`, or `function(outputs, targets, ids)`
    for all outputs by name. `name` is what objectives and constraints call it, by default the
    function's own, of a lambda "score".
    """
    own = getattr(function, "__name__", type(function).__name__)
    name = name or (own if own.isidentifier() else "score")
    record = task_metric(name, maximize=maximize, title=title, unit=unit, digits=digits)
    return FunctionScorer(function, record, takes_outputs(function))


def as_scorers(first: object, others: Iterable[object] = ()) -> tuple[Scorer, ...]:
    """The quality and what is measured besides it. Raises ConfigError unless each has a name of its
    own, and of those besides one that is none of petra's.
    """
    if isinstance(others, str):
        others = (others,)
    rest = [as_scorer(one, where=f"metrics[{i}]") for i, one in enumerate(others)]
    found = (as_scorer(first, where="metric"), *rest)
    names = [one.metric.name for one in found]
    taken = [name for name in names[1:] if name in METRICS or name in ALIASES]
    if taken or len(set(names)) < len(names):
        raise ConfigError(
            f"metrics: got {', '.join(names)}",
            hint=f"{taken[0]} is one of petra's own: choose another name"
            if taken
            else "each needs a name of its own",
        )
    return found
