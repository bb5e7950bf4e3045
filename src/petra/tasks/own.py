"""Tasks of any other kind, made of a loss and a score: no class to write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from petra.core.errors import DataError
from petra.tasks.base import Augment, Task
from petra.tasks.data import Split
from petra.tasks.given_scorers import as_scorer, as_scorers
from petra.tasks.losses import Distance, Loss, SquaredDistance, as_distance, as_losses
from petra.tasks.scorers import Scorer


@dataclass(frozen=True)
class OwnTask(Task):
    """What its makers say: any numbers as targets, and the outputs that losses and scorers take."""

    trained: tuple[Loss, ...] = ()
    measured: tuple[Scorer, ...] = ()
    between: Distance = SquaredDistance()  # noqa: RUF009 - a frozen value

    def losses(self) -> tuple[Loss, ...]:
        return self.trained

    def distance(self) -> Distance:
        return self.between

    def scorers(self) -> tuple[Scorer, ...]:
        return self.measured

    def check(self, prediction: Tensor, target: Tensor, *, where: str) -> None:
        if not target.ndim or not prediction.ndim or len(prediction) != len(target):
            raise DataError(
                f"{where}: the model returns shape {tuple(prediction.shape)}, targets are"
                f" {tuple(target.shape)}",
                hint="both need one entry per item along the first axis",
            )


def task(
    train: object,
    val: object,
    test: object,
    *,
    loss: object,
    score: object,
    maximize: bool | None = None,
    metrics: Iterable[object] = (),
    distance: object = SquaredDistance(),
    augment: Augment | None = None,
    limit: int | None = None,
    preprocessing: str = "",
    meaning: str = "",
) -> OwnTask:
    """A task of your own from datasets, loaders or (inputs, targets) pairs of arrays.

    `loss` is a function of (prediction, target) with a scalar that has a gradient, or several of
    them, or a `petra.Loss` with parameters that the search may set. `score` is a function of
    (prediction, targets) for all items of a split, in the direction that `maximize` says, or the
    name of a metric of torchmetrics, or a `petra.Scorer`. A function that calls its first parameter
    ``outputs`` gets all outputs of the model by name: `loss(outputs, target)`, `score(outputs,
    targets, ids)`. Standard errors are found by leaving out groups of items.

    `metrics` are measured and reported besides. `distance` says how far two models' outputs are
    apart, for distillation and pruning: mean squared differences by default. `limit` is the number
    of items read of each split in one pass. `preprocessing` and `meaning` as for
    `petra.classification`.

    Of a detector or a segmenter: targets are one array, (n, most, 5) of padded boxes and labels or
    (n, height, width) of classes; all outputs have the items along their first axis. What decides
    (arg max, top k, suppression) belongs in the score: where a model does it, the smallest
    difference between two files may change what it returns, and their order. A score that returns
    a number of each item, (n,), costs one call where any other costs hundreds.

    >>> petra.task(train, val, test, loss=functional.l1_loss, score=mape, maximize=False)
    """
    return OwnTask(
        Split.of(train, name="train", limit=limit),
        Split.of(val, name="val", limit=limit),
        Split.of(test, name="test", limit=limit),
        augment,
        as_losses(loss),
        as_scorers(as_scorer(score, where="score", maximize=maximize), metrics),
        as_distance(distance),
        preprocessing=preprocessing,
        meaning=meaning,
    )
