"""Regression: real targets, root mean squared error as the metric."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from petra.core.errors import DataError
from petra.core.measurement import Measurement
from petra.tasks.base import Augment, Task
from petra.tasks.data import Split
from petra.tasks.sources import Reader
from petra.tasks.targets import real_values

LOSSES = ("mse", "mae", "huber", "lai_mse", "lai_mae")
# our choice, without a source: below 1, so that steep residuals weigh more; see `lai_weight`
LAI_LAMBDA = 0.5


@dataclass(frozen=True)
class Regression(Task):
    """Real targets: predictions and targets (n,) or (n, outputs); a trailing axis of one is
    ignored.
    """

    metric: ClassVar[str] = "rmse"
    maximize: ClassVar[bool] = False
    ignores: ClassVar[frozenset[str]] = frozenset({"label_smoothing", "temperature"})

    def reader(self) -> Reader:
        return real_values

    def losses(self) -> tuple[str, ...]:
        return LOSSES

    def loss(
        self, name: str, prediction: Tensor, target: Tensor, *, label_smoothing: float = 0.0
    ) -> Tensor:
        self.check_loss(name)
        prediction, target = _aligned(prediction, target)
        if name == "mae":
            return functional.l1_loss(prediction, target)
        if name == "huber":
            return functional.huber_loss(prediction, target)
        if name == "lai_mse":
            return lai_mse(prediction - target, LAI_LAMBDA)
        if name == "lai_mae":
            return lai_mae(prediction - target, LAI_LAMBDA)
        return functional.mse_loss(prediction, target)

    def distillation(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Mean squared distance to the teacher's prediction; the temperature has no meaning here
        and is ignored.
        """
        return functional.mse_loss(*_aligned(student, teacher))

    def score(self, predictions: Tensor, targets: Tensor) -> Measurement:
        """RMSE with its standard error by the delta method: se(mse) / (2 rmse)."""
        predictions, targets = _aligned(predictions.double(), targets.double())
        squared = ((predictions - targets) ** 2).reshape(len(targets), -1).mean(1)
        n, mse = len(squared), float(squared.mean())
        rmse = math.sqrt(mse)
        spread = float(squared.std()) / math.sqrt(n) if n > 1 else 0.0
        return Measurement(rmse, spread / (2 * rmse) if rmse > 0 else 0.0, n)

    def check(self, prediction: Tensor, target: Tensor, *, where: str) -> None:
        if not target.is_floating_point():
            raise DataError(
                f"{where}: targets are {target.dtype}", hint="regression targets are floating point"
            )
        if not torch.isfinite(target).all():
            raise DataError(
                f"{where}: targets contain NaN or infinity", hint="drop or impute those items"
            )
        if _squeezed(prediction).shape != _squeezed(target).shape:
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


def lai_weight(sine: Tensor, cosine: Tensor, lam: float) -> Tensor:
    """max(sine / lambda, cosine) for lambda < 1, max(sine, lambda * cosine) otherwise, elementwise
    (Lai 2024).

    Sine and cosine are of the angle at which the loss rises with the prediction. The first is the
    larger only where the slope k exceeds lambda (lambda^(1/2) where both are squares), so a smaller
    lambda weights steep residuals more; from 1 on, lambda scales what all others count.
    """
    return torch.maximum(sine / lam, cosine) if lam < 1 else torch.maximum(sine, lam * cosine)


def lai_mse(residual: Tensor, lam: float) -> Tensor:
    """Mean of r^2 weighted by the squared sine and cosine of the slope k = 2 r / n, residuals (n,
    ...) -> scalar.
    """
    k2 = (2 * residual / len(residual)).square()
    return (lai_weight(k2 / (1 + k2), 1 / (1 + k2), lam) * residual.square()).mean()


def lai_mae(residual: Tensor, lam: float) -> Tensor:
    """Mean of |r| weighted by the sine and cosine of the slope k = sign(r) / n, residuals (n, ...)
    -> scalar.
    """
    k = (residual.sign() / len(residual)).abs()
    length = (1 + k.square()).sqrt()
    return (lai_weight(k / length, 1 / length, lam) * residual.abs()).mean()


def _squeezed(t: Tensor) -> Tensor:
    return t.squeeze(-1) if t.ndim > 1 and t.shape[-1] == 1 else t


def _aligned(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    return _squeezed(prediction), _squeezed(target)


def regression(
    train: object,
    val: object,
    test: object,
    *,
    augment: Augment | None = None,
    limit: int | None = None,
) -> Regression:
    """A regression task from datasets, loaders or (inputs, targets) pairs of arrays; integer
    targets become real.

    `limit` is the number of items read of each split in one pass, which a stream without end needs.
    """
    return Regression(
        Split.of(train, name="train", limit=limit),
        Split.of(val, name="val", limit=limit),
        Split.of(test, name="test", limit=limit),
        augment,
    )
