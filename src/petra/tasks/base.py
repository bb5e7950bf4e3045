"""A task says what "good" means: the data splits, the loss a model is trained with, the metric it
is judged by.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from petra.core.errors import ConfigError, did_you_mean
from petra.core.interface import judged_output
from petra.core.measurement import Measurement
from petra.tasks.data import Split
from petra.tasks.inputs import Inputs, batch_size, map_inputs, named
from petra.tasks.ragged import RaggedItems
from petra.tasks.sources import Reader
from petra.tasks.targets import numbers

Augment = Callable[[Inputs, torch.Generator], Inputs]


@dataclass(frozen=True)
class Task(ABC):
    """Data and judgement. `train` is for stages, `val` for the search, `test` is read once for the
    final front.

    `augment`, if given, maps a training batch of inputs and a generator to the inputs trained on.
    Losses are chosen by name from `losses()` because they are parameters of the search;
    `default_loss` is the first.
    """

    train: Split
    val: Split
    test: Split
    augment: Augment | None = None

    metric: ClassVar[str]
    maximize: ClassVar[bool]
    ignores: ClassVar[frozenset[str]] = (
        frozenset()
    )  # stage parameters that mean nothing to this task

    def __post_init__(self) -> None:
        """Whatever stands for a split becomes one, its targets read as this task has them."""
        for name in ("train", "val", "test"):
            split = Split.of(getattr(self, name), name=name)
            object.__setattr__(self, name, split.read_by(self.reader()))

    def reader(self) -> Reader:
        """How what users give for targets becomes a tensor: `reader(raw, *, where)`, by default any
        numbers.
        """
        return numbers

    def ignored(self) -> frozenset[str]:
        """`ignores`, and what cannot act on this data: only floating-point inputs can be mixed."""
        mixable = all(tensor.is_floating_point() for tensor in named(self.example()).values())
        return self.ignores if mixable else self.ignores | {"mixup"}

    @abstractmethod
    def losses(self) -> tuple[str, ...]:
        """Names of the losses a training stage may use, the default first."""

    def check_loss(self, name: str) -> None:
        """Raise ConfigError unless `name` is "default" or one of `losses()`."""
        if name != "default" and name not in self.losses():
            raise ConfigError(
                f"loss: {type(self).__name__} has no loss {name!r}",
                hint=did_you_mean(name, ["default", *self.losses()]),
            )

    @abstractmethod
    def loss(
        self, name: str, prediction: Tensor, target: Tensor, *, label_smoothing: float = 0.0
    ) -> Tensor:
        """Mean loss of a batch, prediction and target (B, ...) -> scalar. "default" is the first of
        `losses()`.
        """

    @abstractmethod
    def distillation(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Mean soft loss between two predictions of one batch, both (B, ...) -> scalar."""

    @abstractmethod
    def score(self, predictions: Tensor, targets: Tensor) -> Measurement:
        """The metric with its sampling standard error over n items: predictions (n, ...), targets
        (n, ...).
        """

    @abstractmethod
    def check(self, prediction: Tensor, target: Tensor, *, where: str) -> None:
        """Raise DataError when predictions and targets of a batch do not fit each other (shapes,
        label range).
        """

    def judged(self, outputs: tuple[str, ...]) -> tuple[str, ...]:
        """Names of those of the model's outputs that `score` looks at."""
        return (judged_output(outputs),)

    def example(self, n: int = 2) -> Inputs:
        """The first `n` inputs of the validation split, repeated where it has fewer, for tracing
        and export; of items of different length, `n` of the median length.
        """
        if isinstance(self.val.source, RaggedItems):
            return self.val.source.example(n)
        inputs = self.val.head(n)
        items = batch_size(inputs)
        return map_inputs(inputs, lambda t: t[torch.arange(n) % items]) if items < n else inputs

    def splits(self) -> Iterator[tuple[str, Split]]:
        yield from (("train", self.train), ("val", self.val), ("test", self.test))
