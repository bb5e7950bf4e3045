"""Metrics of forecasts, whose windows follow each other in time and overlap."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from petra.core.measurement import Measurement
from petra.core.metric import Metric, task_metric
from petra.tasks.forecast_losses import Levels, pinball
from petra.tasks.inputs import Outputs, main_output
from petra.tasks.scorers import ItemScorer, Scorer

REACHES = 2  # that a block is long at least
FEW, MANY = 5, 30  # blocks
PAIRS = 16  # of windows, that are looked at for what they share


def reach(targets: Tensor, ids: Tensor) -> int:
    """How many windows in a row, of targets (n, channels, horizon), share steps with the first of
    them: the horizon over how many steps later the next window begins, which is seen in what most
    pairs of neighbours share. A horizon, as of windows at every step, where it is not seen.
    """
    order, horizon = ids.argsort(), targets.shape[-1]
    found = (ids[order].diff() == 1).nonzero()[:, 0]
    pairs = found[:: max(1, len(found) // PAIRS)][:PAIRS]
    first, second = targets[order[pairs]], targets[order[pairs + 1]]
    for later in range(1, horizon if len(pairs) else 1):
        same = first[..., later:] == second[..., : horizon - later]
        if same.flatten(1).all(1).double().mean() > 0.5:
            return math.ceil(horizon / later)
    return horizon


def blocks(ids: Tensor, reach: int) -> Tensor:
    """The block of each window, (n,), from windows' numbers in order of time, (n,).

    Windows that share steps have errors that are alike, and n of them say less than n independent
    ones: a standard error that does not know it is too small by up to the root of their `reach`. Of
    blocks of windows in a row only neighbours share any, and few (Kunsch 1989). They are equally
    long, at least `REACHES` reaches, and `MANY` at most; but never fewer than `FEW`, so that of
    less than ten reaches in all the error is still too small.
    """
    first = int(ids.min())
    span = int(ids.max()) - first + 1
    count = min(max(span // (REACHES * reach), FEW), MANY, span)
    return (ids - first) * count // span


@dataclass(frozen=True)
class InTime(Scorer):
    """What `scorer` measures of forecasts, its errors by blocks of windows in a row: a block is
    left out, or drawn, as a whole, for which the windows of one block have one id there.

    Of quantile forecasts it is shown the one of number `point`; all where that is None.
    """

    scorer: Scorer
    point: int | None = None
    every: bool = False

    @property
    def metric(self) -> Metric:
        return self.scorer.metric

    def value(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> float:
        return self.scorer.value(self._seen(outputs), targets, ids)

    def measure(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Measurement:
        return self.scorer.measure(self._seen(outputs), targets, in_blocks(targets, ids))

    def difference(
        self, ours: Outputs, theirs: Outputs, targets: Tensor, ids: Tensor
    ) -> Measurement:
        mine, other = self._seen(ours), self._seen(theirs)
        return self.scorer.difference(mine, other, targets, in_blocks(targets, ids))

    def _seen(self, outputs: Outputs) -> Outputs:
        if self.point is None:
            return outputs
        return {"output": main_output(outputs)[..., self.point]}


def in_blocks(targets: Tensor, ids: Tensor) -> Tensor:
    """The block of each of the windows with these targets, as long as their overlap asks for."""
    return blocks(ids, reach(targets, ids))


@dataclass(frozen=True)
class MeanAbsoluteScaledError(ItemScorer):
    """MASE (Hyndman & Koehler 2006): the absolute error over `scale`, that of repeating the last
    season in the training series, one for each channel; in the mean over channels and steps. Below
    1 is better than repeating.
    """

    scale: tuple[float, ...]

    @property
    def metric(self) -> Metric:
        return task_metric("mase", title="MASE", maximize=False)

    def items(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Tensor:
        off = (main_output(outputs).double() - targets.double()).abs().mean(-1)
        return (off / torch.tensor(self.scale, dtype=torch.float64)).mean(1)


@dataclass(frozen=True)
class MeanPinball(ItemScorer):
    """Mean pinball loss over channels, steps and quantiles; of a point forecast, which is taken for
    the median, half the absolute error.
    """

    levels: Levels

    @property
    def metric(self) -> Metric:
        return task_metric("pinball", title="pinball loss", maximize=False)

    def items(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Tensor:
        prediction = main_output(outputs).double()
        if prediction.ndim == targets.ndim:
            prediction = prediction.unsqueeze(-1)
        return pinball(prediction, targets.double(), self.levels).flatten(1).mean(1)
