"""Losses and distance of classification: predictions (b, classes) of logits, targets (b,) of class
indices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from petra.core.errors import ConfigError
from petra.space.declare import parameter
from petra.space.domains import Real
from petra.tasks.inputs import Outputs, main_output
from petra.tasks.losses import Distance, Loss

EXCLUDED = -1e4  # a logit this far below the others has probability 0 in float32


@dataclass(frozen=True)
class ClassLoss(Loss):
    """A loss that can weigh classes: the mean over items, weighted by `weights` of their classes.
    Classes beyond the last weight have 1.
    """

    weights: tuple[float, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for i, weight in enumerate(self.weights):
            if not 0 < weight < math.inf:
                raise ConfigError(
                    f"weights: class {i} has {weight}", hint="a positive number for each class"
                )

    def weights_of(self, logits: Tensor) -> Tensor | None:
        """A weight for every class of logits (b, classes), None where all are alike. Raises
        ConfigError for more weights than classes.
        """
        if not self.weights:
            return None
        classes = logits.shape[1]
        if len(self.weights) > classes:
            raise ConfigError(
                f"weights: {len(self.weights)} for a model of {classes} classes",
                hint="one for each output of the model, in their order",
            )
        rest = (1.0,) * (classes - len(self.weights))
        return torch.tensor((*self.weights, *rest), dtype=logits.dtype, device=logits.device)


@dataclass(frozen=True)
class CrossEntropy(ClassLoss):
    """Cross entropy, with a share of every label spread over all classes."""

    name: ClassVar[str] = "cross_entropy"

    label_smoothing: float = parameter(
        0.0, Real(0.0, 0.15), "share of a label spread over all", limits=Real(0.0, 0.9)
    )

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        logits = _unmasked(main_output(outputs))
        weights = self.weights_of(logits)
        return functional.cross_entropy(
            logits, target, weights, label_smoothing=self.label_smoothing
        )


@dataclass(frozen=True)
class Focal(ClassLoss):
    """-(1 - p)^gamma log p (Lin et al. 2017): items that are right already count less. With weights
    it is their equation 5, divided by the sum of the weights instead of the number of items.
    """

    name: ClassVar[str] = "focal"

    gamma: float = parameter(
        2.0,
        Real(0.5, 5.0),
        "how much less items count that are right already",
        limits=Real(0.0, 20.0),
    )

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        logits = _unmasked(main_output(outputs))
        log_p = functional.log_softmax(logits, dim=1)
        per_item = functional.nll_loss(log_p, target, reduction="none")
        # Below gamma 1 the slope at 0 is infinite, which 0, of an item that is certain, makes NaN.
        wrong = (1 - torch.exp(-per_item)).clamp(min=1e-12)
        focal, weights = wrong**self.gamma * per_item, self.weights_of(logits)
        if weights is None:
            return focal.mean()
        return (weights[target] * focal).sum() / weights[target].sum()


@dataclass(frozen=True)
class SoftenedDivergence(Distance):
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) (Hinton et al. 2015)."""

    temperature: float = parameter(
        4.0, Real(1.0, 8.0), "softening of both distributions", limits=Real(0.1, 100.0)
    )

    def __call__(self, student: Outputs, teacher: Outputs) -> Tensor:
        t = self.temperature
        log_s = functional.log_softmax(_unmasked(main_output(student)) / t, dim=1)
        log_t = functional.log_softmax(_unmasked(main_output(teacher)) / t, dim=1)
        return functional.kl_div(log_s, log_t, reduction="batchmean", log_target=True) * t**2


def _unmasked(logits: Tensor) -> Tensor:
    """Logits of excluded classes, minus infinity, as finite ones that have no probability
    either.
    """
    return logits.clamp(min=EXCLUDED)
