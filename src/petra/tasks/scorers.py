"""Scorers are values: each measures one number of how good predictions are, with its sampling
error, and describes it. The first of a task's scorers is *the* quality; the others are reported and
may be objectives or constraints by their name.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from petra.core.errors import DataError
from petra.core.measurement import Measurement
from petra.core.metric import Metric, task_metric
from petra.tasks.inputs import Outputs, main_output
from petra.tasks.losses import takes_outputs

GROUPS = 30  # of items, left out one after the other for a standard error
RESAMPLES = 100  # of items, drawn for the standard error of a difference


class Scorer(ABC):
    """Measures the predictions for a split; what derives from it is a frozen dataclass.

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

    def difference(
        self, ours: Outputs, theirs: Outputs, targets: Tensor, ids: Tensor
    ) -> Measurement:
        """How much more the number is of `ours` than of `theirs`, for the same items, with the
        standard error of that difference: far smaller than those of two models measured apart,
        where both err on the same items.
        """
        return bootstrap(self, ours, theirs, targets, ids)


class ItemScorer(Scorer, ABC):
    """The mean of a number that every item has, with its standard error (`mean_of`)."""

    @abstractmethod
    def items(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Tensor:
        """The number of each item, (n,)."""

    def value(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> float:
        return float(self.items(outputs, targets, ids).double().mean())

    def measure(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Measurement:
        return mean_of(self.items(outputs, targets, ids), ids)

    def difference(
        self, ours: Outputs, theirs: Outputs, targets: Tensor, ids: Tensor
    ) -> Measurement:
        mine, other = (self.items(o, targets, ids).double() for o in (ours, theirs))
        return mean_of(mine - other, ids)


class ResampledScorer(Scorer, ABC):
    """A number without a formula for its error, which is found by the jackknife."""

    def measure(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Measurement:
        value = self.value(outputs, targets, ids)
        return Measurement(value, jackknife(self, outputs, targets, ids, value), len(targets))


def mean_of(items: Tensor, ids: Tensor) -> Measurement:
    """The mean of a number of each item, (n,), and its standard error: that of n independent
    numbers, or, where several items have one id, the jackknife that leaves out an id at a time.
    """
    items, n = items.double(), len(items)
    names, number, sizes = torch.unique(ids, return_inverse=True, return_counts=True)
    g, mean = len(names), float(items.mean())
    if g == n:
        return Measurement(mean, float(items.std()) / n**0.5 if n > 1 else 0.0, n)
    if g == 1:
        return Measurement(mean, 0.0, n)
    sums = torch.zeros(g, dtype=torch.float64).index_add_(0, number, items)
    without = (items.sum() - sums) / (n - sizes)
    return Measurement(mean, float(without.std(correction=0)) * math.sqrt(g - 1), n)


def jackknife(
    scorer: Scorer,
    outputs: Outputs,
    targets: Tensor,
    ids: Tensor,
    value: float,
    together: Tensor | None = None,
) -> float:
    """Standard error of a number of n items: the jackknife that leaves out a group of items at a
    time (Efron & Stein 1981), of at most `GROUPS` groups. Items of one id are left out together;
    or those of one number in `together`, (n,).

    sqrt((g - 1) / g * sum of squared differences from their mean). Groups without which the number
    is undefined do not count; 0 where fewer than two are left. Costs g values.
    """
    names, number = torch.unique(ids if together is None else together, return_inverse=True)
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


def bootstrap(
    scorer: Scorer,
    ours: Outputs,
    theirs: Outputs,
    targets: Tensor,
    ids: Tensor,
    together: Tensor | None = None,
) -> Measurement:
    """The difference of a number between two models, with the standard deviation of `RESAMPLES`
    paired bootstrap samples as its error (Efron & Tibshirani 1993, ch. 8): both models are measured
    on the same items drawn with replacement, those of one id together, or of one number in
    `together`, (n,).

    Samples for which the number is undefined do not count; the error is 0 where fewer than two are
    left. Drawn from a seed of its own: the same predictions give the same error. Costs
    2 (RESAMPLES + 1) values.
    """

    def change(index: Tensor | None) -> float:
        def value(outputs: Outputs) -> float:
            if index is None:
                return scorer.value(outputs, targets, ids)
            part = {name: t[index] for name, t in outputs.items()}
            return scorer.value(part, targets[index], ids[index])

        return value(ours) - value(theirs)

    mean, n = change(None), len(targets)
    names, number = torch.unique(ids if together is None else together, return_inverse=True)
    order = torch.argsort(number, stable=True)
    sizes = torch.bincount(number, minlength=len(names))
    first = sizes.cumsum(0) - sizes  # place of each name's first item in that order
    random = torch.Generator().manual_seed(0)
    found = []
    for _ in range(RESAMPLES if len(names) > 1 and math.isfinite(mean) else 0):
        drawn = torch.randint(len(names), (len(names),), generator=random)
        counts = sizes[drawn]
        before = first[drawn] - (counts.cumsum(0) - counts)
        places = before.repeat_interleave(counts) + torch.arange(int(counts.sum()))
        found.append(change(order[places]))
    spread = torch.tensor([v for v in found if math.isfinite(v)], dtype=torch.float64)
    return Measurement(mean, float(spread.std()) if len(spread) > 1 else 0.0, n)


@dataclass(frozen=True)
class FunctionScorer(ResampledScorer):
    """A function of the user's as a scorer: of the one output and the targets, or, where `every`,
    of all outputs by name, targets and ids.

    It returns a number; or a number of each item, (n,), of which the mean is meant, and whose
    errors then cost no further calls; or a `Measurement`.

    `groups`, of targets and ids, says which items are not independent, (n,), where that is more
    than those of one id; the function is given ids as they are.
    """

    function: Callable[..., object]
    described: Metric
    every: bool = False
    groups: Callable[[Tensor, Tensor], Tensor] | None = None

    @property
    def metric(self) -> Metric:
        return self.described

    def value(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> float:
        return self._number(self._call(outputs, targets, ids), len(targets))

    def _number(self, found: object, n: int) -> float:
        """What the function returned of n items as a number."""
        items = _of_each(found, n)
        if items is not None:
            return float(items.mean())
        try:
            number = found.mean if isinstance(found, Measurement) else found
            return float(number)  # type: ignore[arg-type]
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(
                f"the metric {self.metric.name} returned {type(found).__name__}: {error}",
                hint=(
                    f"it must return a number, one of each of the {n} items, or a"
                    " petra.Measurement(mean, stderr, n)"
                ),
            ) from error

    def measure(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Measurement:
        found = self._call(outputs, targets, ids)
        if isinstance(found, Measurement):
            return found
        items, together = _of_each(found, len(targets)), self._together(targets, ids)
        if items is not None:
            return mean_of(items, together)
        value = self._number(found, len(targets))
        error = jackknife(self, outputs, targets, ids, value, together)
        return Measurement(value, error, len(targets))

    def difference(
        self, ours: Outputs, theirs: Outputs, targets: Tensor, ids: Tensor
    ) -> Measurement:
        n, together = len(targets), self._together(targets, ids)
        mine = _of_each(self._call(ours, targets, ids), n)
        other = None if mine is None else _of_each(self._call(theirs, targets, ids), n)
        if mine is None or other is None:
            return bootstrap(self, ours, theirs, targets, ids, together)
        return mean_of(mine - other, together)

    def _together(self, targets: Tensor, ids: Tensor) -> Tensor:
        return self.groups(targets, ids) if self.groups else ids

    def _call(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> object:
        if self.every:
            return self.function(outputs, targets, ids)
        return self.function(main_output(outputs), targets)


def _of_each(found: object, n: int) -> Tensor | None:
    """What a function returned as a number of each of n items, (n,); None for anything else."""
    if isinstance(found, np.ndarray) and found.dtype.kind in "fiub":
        found = torch.from_numpy(np.ascontiguousarray(found, dtype=np.float64))
    if not isinstance(found, Tensor) or found.shape != (n,):
        return None
    return found.detach().double()


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
    for all outputs by name. It returns a number, or one of each item, (n,), of which the mean is
    meant: errors then cost nothing, else hundreds of calls. `name` is what objectives and
    constraints call it, by default the function's own, of a lambda "score".
    """
    own = getattr(function, "__name__", type(function).__name__)
    name = name or (own if own.isidentifier() else "score")
    record = task_metric(name, maximize=maximize, title=title, unit=unit, digits=digits)
    return FunctionScorer(function, record, takes_outputs(function))
