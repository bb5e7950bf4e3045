"""The metrics that petra computes itself, with formulas for their errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from petra.core.measurement import Measurement
from petra.core.metric import Metric, task_metric
from petra.tasks.inputs import Outputs, main_output
from petra.tasks.scorers import ItemScorer, ResampledScorer, Scorer, bootstrap, mean_of
from petra.tasks.value_losses import aligned


def decides(prediction: Tensor, targets: Tensor) -> bool:
    """Whether predictions are classes already: whole numbers or booleans, as many as targets."""
    return not prediction.is_floating_point() and prediction.numel() == targets.numel()


def chosen(prediction: Tensor, targets: Tensor) -> Tensor:
    """The class of each item, (n, ...): that of the largest logit, (n, classes, ...), or of one
    logit alone, (n,) or (n, 1, ...), the second of two where it is positive; or what the model
    `decides`.
    """
    if decides(prediction, targets):
        return prediction.long()
    if prediction.ndim == 1:
        return (prediction > 0).long()
    return prediction.argmax(1) if prediction.shape[1] > 1 else (prediction[:, 0] > 0).long()


@dataclass(frozen=True)
class Accuracy(ItemScorer):
    """Share of items whose class is the chosen one, with its binomial standard error; of items that
    have many classes, such as pixels, the mean of the shares that are right.
    """

    @property
    def metric(self) -> Metric:
        return task_metric("accuracy", maximize=True)

    def items(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Tensor:
        right = chosen(main_output(outputs), targets)
        return (right == targets.reshape(right.shape)).double().reshape(len(right), -1).mean(1)

    def measure(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Measurement:
        if targets.numel() > len(targets):
            return super().measure(outputs, targets, ids)
        p, n = self.value(outputs, targets, ids), len(targets)
        return Measurement(p, math.sqrt(p * (1 - p) / n), n)

    def difference(
        self, ours: Outputs, theirs: Outputs, targets: Tensor, ids: Tensor
    ) -> Measurement:
        """Of one class per item, from the b items that only ours gets right and the c that only
        theirs does, as McNemar's test has it: (b - c) / n. Its error has half an item more in
        either cell and two items more in all (Agresti & Min 2005), so that few or no disagreements
        do not make a difference certain: sqrt(b + c - (b - c)^2 / n) / n of those.
        """
        if targets.numel() > len(targets):
            return super().difference(ours, theirs, targets, ids)
        mine, other = (self.items(o, targets, ids) for o in (ours, theirs))
        n, b, c = len(mine), float((mine > other).sum()), float((mine < other).sum())
        disagree, more = b + c + 1, n + 2
        return Measurement((b - c) / n, math.sqrt(disagree - (b - c) ** 2 / more) / more, n)


@dataclass(frozen=True)
class RootMeanSquaredError(Scorer):
    """RMSE with its standard error by the delta method: se(mse) / (2 rmse)."""

    @property
    def metric(self) -> Metric:
        return task_metric("rmse", maximize=False)

    def value(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> float:
        return math.sqrt(float(self._squares(outputs, targets).mean()))

    def measure(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Measurement:
        mse = mean_of(self._squares(outputs, targets), ids)
        rmse = math.sqrt(mse.mean)
        return Measurement(rmse, mse.stderr / (2 * rmse) if rmse > 0 else 0.0, mse.n)

    def difference(
        self, ours: Outputs, theirs: Outputs, targets: Tensor, ids: Tensor
    ) -> Measurement:
        mine, other = ({"output": self._squares(o, targets)} for o in (ours, theirs))
        return bootstrap(_Root(), mine, other, targets, ids)

    def _squares(self, outputs: Outputs, targets: Tensor) -> Tensor:
        """Mean squared error of each item, (n,)."""
        predictions, targets = aligned(main_output(outputs).double(), targets.double())
        return ((predictions - targets) ** 2).reshape(len(targets), -1).mean(1)


@dataclass(frozen=True)
class _Root(ResampledScorer):
    """The root of a mean, of numbers that are found already."""

    @property
    def metric(self) -> Metric:
        return task_metric("rmse", maximize=False)

    def value(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> float:
        return math.sqrt(float(outputs["output"].mean()))


@dataclass(frozen=True)
class MeanAbsoluteError(ItemScorer):
    """Mean absolute error over the values of an item, then over items."""

    @property
    def metric(self) -> Metric:
        return task_metric("mae", maximize=False)

    def items(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Tensor:
        predictions, targets = aligned(main_output(outputs).double(), targets.double())
        return (predictions - targets).abs().reshape(len(targets), -1).mean(1)


OWN: dict[str, type[Scorer]] = {
    "accuracy": Accuracy, "rmse": RootMeanSquaredError, "mae": MeanAbsoluteError
}  # fmt: skip
