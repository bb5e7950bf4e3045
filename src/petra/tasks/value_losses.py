"""Losses and distance of real values: predictions and targets (b,) or (b, ...), a trailing axis of
one ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from petra.space.declare import parameter
from petra.space.domains import Real
from petra.tasks.inputs import Outputs, main_output
from petra.tasks.losses import Distance, Loss


@dataclass(frozen=True)
class ValueLoss(Loss):
    """A loss of residuals, which are measured in a `unit`: learning rates then mean the same
    whether the targets are in watts or in megawatts. One of the size of the targets' spread makes
    the loss of a model that predicts their mean about 1.
    """

    unit: float = field(default=1.0, kw_only=True)


@dataclass(frozen=True)
class SquaredError(ValueLoss):
    """Mean squared error."""

    name: ClassVar[str] = "mse"

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        return functional.mse_loss(*aligned(main_output(outputs), target)) / self.unit**2


@dataclass(frozen=True)
class AbsoluteError(ValueLoss):
    """Mean absolute error."""

    name: ClassVar[str] = "mae"

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        return functional.l1_loss(*aligned(main_output(outputs), target)) / self.unit


@dataclass(frozen=True)
class Huber(ValueLoss):
    """Squared up to a residual of delta, linear beyond (Huber 1964)."""

    name: ClassVar[str] = "huber"

    delta: float = parameter(
        1.0,
        Real(0.1, 10.0, log=True),
        "residual from which the loss is linear, in the unit of the losses",
        limits=Real(1e-6, 1e6),
    )

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        prediction, target = aligned(main_output(outputs), target)
        return functional.huber_loss(prediction / self.unit, target / self.unit, delta=self.delta)


@dataclass(frozen=True)
class _Lai(ValueLoss):
    """What both losses of Lai 2024 have: see `lai_weight`. Slopes are those in the targets' own
    unit, as published; only the sum is in the unit of the losses.
    """

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
        return lai_mse(prediction - target, self.lam) / self.unit**2


@dataclass(frozen=True)
class LaiAbsoluteError(_Lai):
    """Absolute error weighted by its slope (Lai 2024)."""

    name: ClassVar[str] = "lai_mae"

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        prediction, target = aligned(main_output(outputs), target)
        return lai_mae(prediction - target, self.lam) / self.unit


@dataclass(frozen=True)
class SquaredPredictions(Distance):
    """Mean squared distance to the teacher's prediction, measured in `unit` (`ValueLoss`)."""

    unit: float = 1.0

    def __call__(self, student: Outputs, teacher: Outputs) -> Tensor:
        pair = aligned(main_output(student), main_output(teacher))
        return functional.mse_loss(*pair) / self.unit**2


def lai_weight(sine: Tensor, cosine: Tensor, lam: float) -> Tensor:
    """max(sine / lambda, cosine) for lambda < 1, max(sine, lambda * cosine) otherwise, elementwise
    (Lai 2024).

    Sine and cosine are of the angle at which the loss rises with the prediction. The first is the
    larger only where the slope k exceeds lambda (lambda^(1/2) where both are squares), so a smaller
    lambda weights steep residuals more; from 1 on, lambda scales what all others count.
    """
    return torch.maximum(sine / lam, cosine) if lam < 1 else torch.maximum(sine, lam * cosine)


def lai_mse(residual: Tensor, lam: float) -> Tensor:
    """Mean of r^2 weighted by the squared sine and cosine of its slope k = 2 r / n, for n residuals
    of any shape -> scalar.
    """
    k2 = (2 * residual / residual.numel()).square()
    return (lai_weight(k2 / (1 + k2), 1 / (1 + k2), lam) * residual.square()).mean()


def lai_mae(residual: Tensor, lam: float) -> Tensor:
    """Mean of |r| weighted by the sine and cosine of its slope k = sign(r) / n, for n residuals of
    any shape -> scalar.
    """
    k = (residual.sign() / residual.numel()).abs()
    length = (1 + k.square()).sqrt()
    return (lai_weight(k / length, 1 / length, lam) * residual.abs()).mean()


def squeezed(t: Tensor) -> Tensor:
    """Without a trailing axis of one."""
    return t.squeeze(-1) if t.ndim > 1 and t.shape[-1] == 1 else t


def aligned(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both without a trailing axis of one."""
    return squeezed(prediction), squeezed(target)
