"""Losses and distance of classification: predictions (b, classes) of logits, targets (b,) of class
indices.
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

EXCLUDED = -1e4  # a logit this far below the others has probability 0 in float32


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Cross entropy, with a share of every label spread over all classes."""

    name: ClassVar[str] = "cross_entropy"

    label_smoothing: float = parameter(
        0.0, Real(0.0, 0.15), "share of a label spread over all", limits=Real(0.0, 0.9)
    )

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        logits = _unmasked(main_output(outputs))
        return functional.cross_entropy(logits, target, label_smoothing=self.label_smoothing)


@dataclass(frozen=True)
class Focal(Loss):
    """-(1 - p)^gamma log p (Lin et al. 2017): items that are right already count less."""

    name: ClassVar[str] = "focal"

    gamma: float = parameter(
        2.0,
        Real(0.5, 5.0),
        "how much less items count that are right already",
        limits=Real(0.0, 20.0),
    )

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        log_p = functional.log_softmax(_unmasked(main_output(outputs)), dim=1)
        per_item = functional.nll_loss(log_p, target, reduction="none")
        # Below gamma 1 the slope at 0 is infinite, which 0, of an item that is certain, makes NaN.
        wrong = (1 - torch.exp(-per_item)).clamp(min=1e-12)
        return (wrong**self.gamma * per_item).mean()


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
