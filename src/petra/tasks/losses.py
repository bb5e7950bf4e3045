"""Losses are values: what a model is trained to make small, with parameters of their own that the
search may set. So are the distances between a model's predictions and the untouched model's.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from petra.core.errors import ConfigError
from petra.core.text import shown
from petra.space.declare import Settable
from petra.tasks.inputs import Outputs, main_output


@dataclass(frozen=True)
class Loss(Settable, ABC):
    """Mean loss of a batch. Fields made by `petra.space.declare.parameter` are searched wherever a
    stage draws from the task's losses.
    """

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        """The loss, a scalar with a gradient: all outputs of the model by name, (b, ...) each,
        targets (b, ...).
        """


@dataclass(frozen=True)
class Distance(Settable, ABC):
    """How far two models' predictions for one batch are apart: what distillation makes small, and
    what says how much a block or a head matters. 0 for equal ones.
    """

    @abstractmethod
    def __call__(self, student: Outputs, teacher: Outputs) -> Tensor:
        """The mean distance, a scalar with a gradient by the student's outputs, (b, ...) each."""


@dataclass(frozen=True)
class SquaredDistance(Distance):
    """Mean squared difference of each real output of the teacher's, summed over the outputs."""

    def __call__(self, student: Outputs, teacher: Outputs) -> Tensor:
        terms = [
            functional.mse_loss(student[name], t)
            for name, t in teacher.items()
            if t.is_floating_point()
        ]
        if not terms:
            raise ConfigError(
                "distance: the model has no output of real numbers",
                hint="give the task a distance of its own: petra.task(..., distance=...)",
            )
        return sum(terms[1:], terms[0])


@dataclass(frozen=True)
class FunctionLoss(Loss):
    """A function of the user's as a loss, called `label`: of the one output and the targets, or,
    with `every`, of all outputs by name and the targets.
    """

    function: Callable[..., Tensor]
    label: str = "own"
    every: bool = False

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.label

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        return self.function(outputs if self.every else main_output(outputs), target)


@dataclass(frozen=True)
class FunctionDistance(Distance):
    """A function of the user's as a distance: of the one output of both models, or, where `every`,
    of all their outputs by name.
    """

    function: Callable[..., Tensor]
    every: bool = False

    def __call__(self, student: Outputs, teacher: Outputs) -> Tensor:
        if self.every:
            return self.function(student, teacher)
        return self.function(main_output(student), main_output(teacher))


def as_distance(given: object) -> Distance:
    """A distance from what a person gives: a `Distance`, or a function of (student, teacher), which
    gets all outputs by name if it calls its first parameter ``outputs``.
    """
    if isinstance(given, Distance):
        return given
    if not callable(given) or isinstance(given, type):
        raise ConfigError(
            f"distance: got {shown(given)}",
            hint="allowed: a function of (student, teacher), or a Distance",
        )
    return FunctionDistance(given, takes_outputs(given))


def as_losses(given: object, *, where: str = "loss") -> tuple[Loss, ...]:
    """Losses from what a person gives: a `Loss`, a function, several of them, or functions by name.

    A function gets (prediction, target); one whose first parameter is called ``outputs`` gets all
    outputs by name instead. Raises ConfigError for anything else and for a name that is taken.
    """
    if isinstance(given, Mapping):
        found = [_as_loss(f, str(name), where=where) for name, f in given.items()]
    elif isinstance(given, Iterable) and not isinstance(given, str):
        found = [_as_loss(one, "", where=f"{where}[{i}]") for i, one in enumerate(given)]
    else:
        found = [_as_loss(given, "", where=where)]
    names = [loss.name for loss in found]
    if not found or len(set(names)) < len(names) or "default" in names:
        raise ConfigError(
            f"{where}: got losses called {', '.join(names) or 'nothing'}",
            hint="give at least one, each with a name of its own other than 'default'",
        )
    return tuple(found)


def _as_loss(given: object, name: str, *, where: str) -> Loss:
    if isinstance(given, Loss):
        return given
    if not callable(given) or isinstance(given, type):
        raise ConfigError(
            f"{where}: got {shown(given)}",
            hint="allowed: a function of (prediction, target), or a petra.Loss",
        )
    own = getattr(given, "__name__", type(given).__name__)
    label = name or (own if own.isidentifier() else "own")
    return FunctionLoss(given, label, takes_outputs(given))


def takes_outputs(function: Callable[..., object]) -> bool:
    """Whether its first parameter is called ``outputs``: then it wants all of them, by name."""
    try:
        first = next(iter(inspect.signature(function).parameters), "")
    except (TypeError, ValueError):  # compiled functions may have no signature
        return False
    return first == "outputs"
