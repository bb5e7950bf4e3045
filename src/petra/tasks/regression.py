"""Regression: real targets, root mean squared error as the metric unless another is given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from petra.core.errors import DataError
from petra.tasks.base import Augment, Task
from petra.tasks.data import Split
from petra.tasks.given_scorers import as_scorers
from petra.tasks.losses import Distance, Loss, as_losses
from petra.tasks.scorers import Scorer
from petra.tasks.scores import RootMeanSquaredError
from petra.tasks.sources import Reader
from petra.tasks.targets import real_values
from petra.tasks.unit import in_unit, unit_of
from petra.tasks.value_losses import (
    AbsoluteError,
    Huber,
    LaiAbsoluteError,
    LaiSquaredError,
    SquaredError,
    SquaredPredictions,
    squeezed,
)

LOSSES: tuple[Loss, ...] = (
    SquaredError(),
    AbsoluteError(),
    Huber(),
    LaiSquaredError(),
    LaiAbsoluteError(),
)


@dataclass(frozen=True)
class Regression(Task):
    """Real targets: predictions and targets (n,) or (n, outputs); a trailing axis of one is
    ignored. `measured` are the scorers, the quality first. `unit` is what petra's own losses and
    the distance measure residuals in.
    """

    measured: tuple[Scorer, ...] = (RootMeanSquaredError(),)
    trained: tuple[Loss, ...] = LOSSES
    unit: float = 1.0

    @property
    def judged_by_error(self) -> bool:
        """Always: a coefficient of determination is one of the errors, too."""
        return True

    def reader(self) -> Reader:
        return real_values

    def losses(self) -> tuple[Loss, ...]:
        return in_unit(self.trained, self.unit)

    def distance(self) -> Distance:
        return SquaredPredictions(self.unit)

    def scorers(self) -> tuple[Scorer, ...]:
        return self.measured

    def check(self, prediction: Tensor, target: Tensor, *, where: str) -> None:
        if not target.is_floating_point():
            raise DataError(
                f"{where}: targets are {target.dtype}", hint="regression targets are floating point"
            )
        if not torch.isfinite(target).all():
            raise DataError(
                f"{where}: targets contain NaN or infinity", hint="drop or impute those items"
            )
        if squeezed(prediction).shape != squeezed(target).shape:
            same = prediction[0].numel() == target[0].numel()
            raise DataError(
                f"{where}: the model returns shape {tuple(prediction.shape)}, targets are"
                f" {tuple(target.shape)}",
                hint=(
                    "give the targets the predictions' shape:"
                    f" targets.reshape{(-1, *prediction.shape[1:])}"
                    if same
                    else "predictions and targets must have the same shape: one output per target"
                ),
            )


def regression(
    train: object,
    val: object,
    test: object,
    *,
    augment: Augment | None = None,
    limit: int | None = None,
    metric: object = RootMeanSquaredError(),
    metrics: Iterable[object] = (),
    loss: object = LOSSES,
    unit: float | None = None,
) -> Regression:
    """A regression task from datasets, loaders or (inputs, targets) pairs of arrays; integer
    targets become real.

    `limit` is the number of items read of each split in one pass, which a stream without end needs.
    `metric`, `metrics` and `loss` as for `petra.classification`. `unit` is what petra's own losses
    measure residuals in, so that learning rates mean the same for targets of any magnitude: by
    default the standard deviation of the training targets where they are in memory, else 1; of
    several outputs the root of their mean variance. Metrics are always in the targets' own unit.
    """
    split = Split.of(train, name="train", limit=limit).read_by(real_values)
    return Regression(
        split,
        Split.of(val, name="val", limit=limit),
        Split.of(test, name="test", limit=limit),
        augment,
        as_scorers(metric, metrics),
        as_losses(loss),
        unit_of(unit, split),
    )
