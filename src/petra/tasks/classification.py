"""Classification: class indices as targets, accuracy as the metric."""

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

LOSSES = ("cross_entropy", "focal")
FOCAL_GAMMA = 2.0  # Lin et al. 2017, the value of the paper


@dataclass(frozen=True)
class Classification(Task):
    """One label per item: predictions (n, classes) of logits, targets (n,) of int64 class indices."""

    metric: ClassVar[str] = "accuracy"
    maximize: ClassVar[bool] = True

    def losses(self) -> tuple[str, ...]:
        return LOSSES

    def loss(self, name: str, prediction: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        self.check_loss(name)
        if name == "focal":
            log_p = functional.log_softmax(prediction, dim=1)
            per_item = functional.nll_loss(log_p, target, reduction="none")
            return ((1 - torch.exp(-per_item)) ** FOCAL_GAMMA * per_item).mean()
        return functional.cross_entropy(prediction, target, label_smoothing=label_smoothing)

    def distillation(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Hinton et al. 2015: T^2 KL(softmax(teacher / T) || softmax(student / T))."""
        log_s = functional.log_softmax(student / temperature, dim=1)
        log_t = functional.log_softmax(teacher / temperature, dim=1)
        return functional.kl_div(log_s, log_t, reduction="batchmean", log_target=True) * temperature**2

    def score(self, predictions: Tensor, targets: Tensor) -> Measurement:
        """Accuracy with its binomial standard error."""
        n = len(targets)
        p = float((predictions.argmax(1) == targets).double().mean())
        return Measurement(p, math.sqrt(p * (1 - p) / n), n)

    def check(self, prediction: Tensor, target: Tensor, *, where: str) -> None:
        if target.dtype != torch.int64 or target.ndim != 1:
            raise DataError(
                f"{where}: targets are {target.dtype} of shape {tuple(target.shape)}",
                hint="classification targets are int64 class indices of shape (batch,)",
            )
        if prediction.ndim != 2 or len(prediction) != len(target):
            raise DataError(
                f"{where}: the model returns shape {tuple(prediction.shape)} for {len(target)} items",
                hint="a classifier returns logits of shape (batch, classes)",
            )
        low, high, classes = int(target.min()), int(target.max()), prediction.shape[1]
        if low < 0 or high >= classes:
            raise DataError(
                f"{where}: labels run from {low} to {high} but the model has {classes} outputs",
                hint=f"labels must lie in 0..{classes - 1}; map raw labels to class indices first",
            )


def classification(train: object, val: object, test: object, *, augment: Augment | None = None) -> Classification:
    """A classification task from datasets, loaders or (inputs, targets) pairs of tensors."""
    return Classification(
        Split.of(train, name="train"), Split.of(val, name="val"), Split.of(test, name="test"), augment
    )
