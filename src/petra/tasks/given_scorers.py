"""What people give as metrics, made scorers: names, functions, scorers themselves."""

from __future__ import annotations

from collections.abc import Iterable

from petra.core.errors import ConfigError
from petra.core.metric import ALIASES, METRICS
from petra.core.text import shown
from petra.tasks.scorers import Scorer, scorer
from petra.tasks.torchmetric import torch_metric


def as_scorer(given: object, *, where: str, maximize: bool | None = None) -> Scorer:
    """A scorer from what a person gives: a `Scorer`, the name of a torchmetrics metric, or a
    function with the direction in which it is better.

    A function gets (prediction, targets); one whose first parameter is called ``outputs`` gets all
    outputs by name, targets and ids. Raises ConfigError for anything else.
    """
    if isinstance(given, Scorer):
        return given
    if isinstance(given, str):
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
