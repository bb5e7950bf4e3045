"""Regression: real targets, root mean squared error as the metric unless another is given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from petra.core.errors import DataError
from petra.tasks.base import Augment
from petra.tasks.data import Split
from petra.tasks.given_scorers import as_scorers
from petra.tasks.losses import as_losses
from petra.tasks.scorers import Scorer
from petra.tasks.scores import RootMeanSquaredError
from petra.tasks.targets import real_values
from petra.tasks.unit import unit_of
from petra.tasks.value_losses import squeezed
from petra.tasks.values import LOSSES, ValueTask


@dataclass(frozen=True, kw_only=True)
class Regression(ValueTask):
    """Predictions and targets (n,) or (n, outputs); a trailing axis of one is ignored."""

    measured: tuple[Scorer, ...] = (RootMeanSquaredError(),)

    def returns(self) -> str:
        return "predicted values, on the scale of the targets"

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
    preprocessing: str = "",
    meaning: str = "",
) -> Regression:
    """A regression task from datasets, loaders or (inputs, targets) pairs of arrays; integer
    targets become real.

    `limit` is the number of items read of each split in one pass, which a stream without end needs.
    `metric`, `metrics` and `loss` as for `petra.classification`. `unit` is what petra's own losses
    measure residuals in, so that learning rates mean the same for targets of any magnitude: by
    default the standard deviation of the training targets where they are in memory, else 1; of
    several outputs the root of their mean variance. Metrics are always in the targets' own unit.

    `preprocessing` and `meaning` as for `petra.classification`: meaning="price in 1,000 euros".
    """
    split = Split.of(train, name="train", limit=limit).read_by(real_values)
    return Regression(
        train=split,
        val=Split.of(val, name="val", limit=limit),
        test=Split.of(test, name="test", limit=limit),
        augment=augment,
        measured=as_scorers(metric, metrics),
        trained=as_losses(loss),
        unit=unit_of(unit, split),
        preprocessing=preprocessing,
        meaning=meaning,
    )
