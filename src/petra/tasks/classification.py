"""Classification: class indices as targets, accuracy as the metric."""

from __future__ import annotations

import math
from collections.abc import Iterable
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
from petra.tasks.targets import ClassIndices

LOSSES = ("cross_entropy", "focal")
EXCLUDED = -1e4  # a logit this far below the others has probability 0 in float32
FOCAL_GAMMA = 2.0  # Lin et al. 2017, the value of the paper


@dataclass(frozen=True)
class Classification(Task):
    """One label per item: predictions (n, classes) of logits, targets (n,) of int64 class indices.

    `classes` names the model's outputs in their order, for labels that are text.
    """

    classes: tuple[str, ...] = ()

    metric: ClassVar[str] = "accuracy"
    maximize: ClassVar[bool] = True

    def reader(self) -> Reader:
        return ClassIndices(self.classes)

    def losses(self) -> tuple[str, ...]:
        return LOSSES

    def loss(
        self, name: str, prediction: Tensor, target: Tensor, *, label_smoothing: float = 0.0
    ) -> Tensor:
        self.check_loss(name)
        prediction = _unmasked(prediction)
        if name == "focal":
            log_p = functional.log_softmax(prediction, dim=1)
            per_item = functional.nll_loss(log_p, target, reduction="none")
            return ((1 - torch.exp(-per_item)) ** FOCAL_GAMMA * per_item).mean()
        return functional.cross_entropy(prediction, target, label_smoothing=label_smoothing)

    def distillation(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Hinton et al. 2015: T^2 KL(softmax(teacher / T) || softmax(student / T))."""
        log_s = functional.log_softmax(_unmasked(student) / temperature, dim=1)
        log_t = functional.log_softmax(_unmasked(teacher) / temperature, dim=1)
        return (
            functional.kl_div(log_s, log_t, reduction="batchmean", log_target=True) * temperature**2
        )

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
                f"{where}: the model returns shape {tuple(prediction.shape)} for {len(target)}"
                " items",
                hint="a classifier returns logits of shape (batch, classes)",
            )
        _check_range(int(target.min()), int(target.max()), prediction.shape[1], where)


def _unmasked(logits: Tensor) -> Tensor:
    """Logits of excluded classes, minus infinity, as finite ones that have no probability
    either.
    """
    return logits.clamp(min=EXCLUDED)


def _check_range(low: int, high: int, classes: int, where: str) -> None:
    if classes == 1:
        raise DataError(
            f"{where}: the model has one output, and a class is chosen among several",
            hint=(
                "give the other class the logit 0: torch.cat([torch.zeros_like(z), z], 1) for the"
                " output z (batch, 1)"
            ),
        )
    if low >= 0 and high < classes:
        return
    hint = f"labels must lie in 0..{classes - 1}; map raw labels to class indices first"
    if low == 1 and high == classes:
        hint = "labels are counted from 0: give labels - 1"
    elif low < 0 and high < classes:
        hint = (
            "items without a label cannot be judged: keep = labels >= 0; (inputs[keep],"
            " labels[keep])"
        )
    span = f"labels run from {low} to {high}" if low < high else f"the label is {low}"
    raise DataError(f"{where}: {span} but the model has {classes} outputs", hint=hint)


def classification(
    train: object,
    val: object,
    test: object,
    *,
    augment: Augment | None = None,
    classes: Iterable[str] = (),
    limit: int | None = None,
) -> Classification:
    """A classification task from datasets, loaders or (inputs, targets) pairs of arrays.

    Labels are class indices, in any type or one-hot; text if `classes` names the model's outputs in
    their order. `limit` is the number of items read of each split in one pass, which a stream
    without end needs.
    """
    return Classification(
        Split.of(train, name="train", limit=limit),
        Split.of(val, name="val", limit=limit),
        Split.of(test, name="test", limit=limit),
        augment,
        tuple(classes),
    )
