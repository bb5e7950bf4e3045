"""Classification: class indices as targets, accuracy as the metric unless another is given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from petra.core.errors import DataError
from petra.tasks.base import Augment, Task
from petra.tasks.class_losses import ClassLoss, CrossEntropy, Focal, SoftenedDivergence
from petra.tasks.class_weights import weighted
from petra.tasks.data import Split
from petra.tasks.given_scorers import as_scorers
from petra.tasks.losses import Distance, Loss, as_losses
from petra.tasks.scorers import Scorer
from petra.tasks.scores import Accuracy
from petra.tasks.sources import Reader
from petra.tasks.targets import ClassIndices

LOSSES: tuple[Loss, ...] = (CrossEntropy(), Focal())


@dataclass(frozen=True)
class Classification(Task):
    """One label per item: predictions (n, classes) of logits, targets (n,) of int64 class indices.

    `classes` names the model's outputs in their order, for labels that are text. `measured` are the
    scorers, the quality first.
    """

    classes: tuple[str, ...] = ()
    measured: tuple[Scorer, ...] = (Accuracy(),)
    trained: tuple[Loss, ...] = LOSSES

    @property
    def judged_by_error(self) -> bool:
        """Never, whatever the metric: outputs are scores of classes, not values."""
        return False

    def returns(self) -> str:
        return "a score of each class, the largest of which is chosen"

    def class_names(self) -> tuple[str, ...]:
        return self.classes

    def reader(self) -> Reader:
        return ClassIndices(self.classes)

    def losses(self) -> tuple[Loss, ...]:
        return self.trained

    def distance(self) -> Distance:
        return SoftenedDivergence()

    def scorers(self) -> tuple[Scorer, ...]:
        return self.measured

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
        classes = prediction.shape[1]
        _check_range(int(target.min()), int(target.max()), classes, where)
        for loss in self.trained:
            if isinstance(loss, ClassLoss) and len(loss.weights) > classes:
                raise DataError(
                    f"{where}: {len(loss.weights)} class weights, and the model has {classes}"
                    " outputs",
                    hint="weights: 'balanced', or one for each output, in their order",
                )


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
    metric: object = Accuracy(),
    metrics: Iterable[object] = (),
    loss: object = LOSSES,
    weights: object = None,
    preprocessing: str = "",
    meaning: str = "",
) -> Classification:
    """A classification task from datasets, loaders or (inputs, targets) pairs of arrays.

    Labels are class indices, in any type or one-hot; text if `classes` names the model's outputs in
    their order. `limit` is the number of items read of each split in one pass, which a stream
    without end needs.

    `metric` is the quality, `metrics` are measured and reported besides and may be objectives or
    constraints by their name: names ("f1_macro", any of torchmetrics), `petra.scorer(function,
    maximize=True)` or a `petra.Scorer`. `loss` is one or several: a function of (logits, labels) or
    a `petra.Loss`; by default the search chooses between cross entropy and focal loss.

    `weights` are of classes, in the losses and not in the metrics: a positive number for each
    output of the model, or "balanced", which lets every class have the same weight in all.

    `preprocessing` and `meaning` say, for whoever will use an exported file, what raw data goes
    through to become these inputs, and what the output is.
    """
    losses, names = as_losses(loss), tuple(classes)
    split = Split.of(train, name="train", limit=limit)
    if weights is not None:
        losses = weighted(losses, weights, split.read_by(ClassIndices(names)))
    return Classification(
        split,
        Split.of(val, name="val", limit=limit),
        Split.of(test, name="test", limit=limit),
        augment,
        names,
        as_scorers(metric, metrics),
        losses,
        preprocessing=preprocessing,
        meaning=meaning,
    )
