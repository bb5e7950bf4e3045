"""Losses and distance of real values: predictions and targets (b,) or (b, ...), a trailing axis of
one ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from petra.space.declare import parameter
from petra.space.domains import Real
from petra.tasks.inputs import Outputs, main_output
from petra.tasks.losses import Distance, Loss


@dataclass(frozen=True)
class SquaredError(Loss):
    """Mean squared error."""

    name: ClassVar[str] = "mse"

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        return functional.mse_loss(*aligned(main_output(outputs), target))


@dataclass(frozen=True)
class AbsoluteError(Loss):
    """Mean absolute error."""

    name: ClassVar[str] = "mae"

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        return functional.l1_loss(*aligned(main_output(outputs), target))


@dataclass(frozen=True)
class Huber(Loss):
    """Squared up to a residual of delta, linear beyond (Huber 1964)."""

    name: ClassVar[str] = "huber"

    delta: float = parameter(
        1.0,
        Real(0.1, 10.0, log=True),
        "residual from which the loss is linear, in the targets' unit",
        limits=Real(1e-6, 1e6),
    )

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        return functional.huber_loss(*aligned(main_output(outputs), target), delta=self.delta)


@dataclass(frozen=True)
class _Lai(Loss):
    """What both losses of Lai 2024 have: see `lai_weight`."""

    # The default is our choice, without a source: below 1, so that steep residuals weigh more.
    lam: float = parameter(
        0.5,
        Real(0.1, 1.0),
        "lambda: the smaller, the more steep residuals weigh",
        limits=Real(1e-3, 100.0),
    )


@dataclass(frozen=True)
class LaiSquaredError(_Lai):
    """Squared error weighted by its slope (Lai 2024)."""

    name: ClassVar[str] = "lai_mse"

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        prediction, target = aligned(main_output(outputs), target)
        return lai_mse(prediction - target, self.lam)


@dataclass(frozen=True)
class LaiAbsoluteError(_Lai):
    """Absolute error weighted by its slope (Lai 2024)."""

    name: ClassVar[str] = "lai_mae"

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        prediction, target = aligned(main_output(outputs), target)
        return lai_mae(prediction - target, self.lam)


@dataclass(frozen=True)
class SquaredPredictions(Distance):
    """Mean squared distance to the teacher's prediction."""

    def __call__(self, student: Outputs, teacher: Outputs) -> Tensor:
        return functional.mse_loss(*aligned(main_output(student), main_output(teacher)))


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


def squeezed(t: Tensor) -> Tensor:
    """Without a trailing axis of one."""
    return t.squeeze(-1) if t.ndim > 1 and t.shape[-1] == 1 else t


def aligned(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both without a trailing axis of one."""
    return squeezed(prediction), squeezed(target)
