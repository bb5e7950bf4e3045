"""Forecasting: windows of series, several steps ahead, of one or several channels; points or
quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from petra.core.errors import ConfigError, DataError
from petra.core.text import shown
from petra.tasks.base import Augment
from petra.tasks.data import Split
from petra.tasks.forecast_losses import (
    Levels,
    Pinball,
    QuantileDistance,
    QuantileHuber,
    WeightedQuantile,
)
from petra.tasks.forecast_scores import (
    InTime,
    MeanAbsoluteScaledError,
    MeanPinball,
    in_blocks,
)
from petra.tasks.given_scorers import as_scorer, as_scorers
from petra.tasks.losses import Distance, as_losses
from petra.tasks.naive_error import naive_error
from petra.tasks.scorers import FunctionScorer, Scorer
from petra.tasks.scores import OWN, MeanAbsoluteError
from petra.tasks.targets import real_values
from petra.tasks.torchmetric import TorchMetric
from petra.tasks.unit import unit_of
from petra.tasks.values import LOSSES, ValueTask

MEDIAN = 0.5


@dataclass(frozen=True, kw_only=True)
class Forecasting(ValueTask):
    """What follows a window of series: targets (n, channels, horizon), predictions of that shape,
    or (n, channels, horizon, quantiles) where there are `quantiles`, levels in rising order. The
    items of val and test are in order of time.
    """

    quantiles: Levels = ()
    measured: tuple[Scorer, ...] = (InTime(MeanAbsoluteError()),)

    def returns(self) -> str:
        levels = f", at the quantiles {', '.join(f'{q:g}' for q in self.quantiles)}"
        what = "what follows, by channel and step, on the scale of the targets"
        return what + levels if self.quantiles else what

    def distance(self) -> Distance:
        return QuantileDistance(self.quantiles, self.unit) if self.quantiles else super().distance()

    def check(self, prediction: Tensor, target: Tensor, *, where: str) -> None:
        if not target.is_floating_point() or target.ndim != 3:
            raise DataError(
                f"{where}: targets are {target.dtype} of shape {tuple(target.shape)}",
                hint="targets of forecasts are real, (batch, channels, horizon); of one series:"
                " targets.unsqueeze(1)",
            )
        if not torch.isfinite(target).all():
            raise DataError(
                f"{where}: targets contain NaN or infinity", hint="drop or fill those windows"
            )
        wanted = (*target.shape, len(self.quantiles)) if self.quantiles else tuple(target.shape)
        if tuple(prediction.shape) != wanted:
            axes = "(batch, channels, horizon" + (", quantiles)" if self.quantiles else ")")
            turned = sorted(prediction.shape) == sorted(wanted)
            raise DataError(
                f"{where}: the model returns shape {tuple(prediction.shape)}, and {wanted} is"
                f" wanted, {axes}",
                hint="put its axes in that order: prediction.movedim(...)"
                if turned
                else _shape_hint(prediction.ndim, len(wanted), len(self.quantiles)),
            )


def _shape_hint(got: int, wanted: int, quantiles: int) -> str:
    if quantiles and got == wanted - 1:
        return f"its last axis has the {quantiles} quantiles; for a point forecast, quantiles=()"
    if not quantiles and got == wanted + 1:
        return "say which quantiles it predicts: petra.forecasting(..., quantiles=(0.1, 0.5, 0.9))"
    return "a forecaster returns as many channels and steps as its targets have"


def forecasting(
    train: object,
    val: object,
    test: object,
    *,
    season: int = 1,
    quantiles: Iterable[float] = (),
    scale: object = None,
    augment: Augment | None = None,
    limit: int | None = None,
    metric: object = None,
    metrics: Iterable[object] = (),
    loss: object = None,
    unit: float | None = None,
    preprocessing: str = "",
    meaning: str = "",
) -> Forecasting:
    """A forecasting task from datasets, loaders or (inputs, targets) pairs of arrays; its parts
    follow each other in time, and so do the items of each.

    Targets are (n, channels, horizon), predictions the same or, for `quantiles` (levels in rising
    order, such as 0.1, 0.5, 0.9), with a last axis of them.

    `metric` and `metrics` as for `petra.classification`; besides, "mase" (Hyndman & Koehler 2006;
    the default of point forecasts) and "pinball" (the default of quantile forecasts). Metrics by
    name other than "pinball" are of the median forecast; functions and scorers of your own get
    whole predictions. MASE is in units of `scale`, a number for each channel: how far the training
    series is from itself `season` steps before, in the mean. Unless given, it is found from the
    training windows, in one pass. Standard errors are by blocks of items, since windows overlap
    (`petra.tasks.forecast_scores.blocks`).

    `loss` as for `petra.classification`; by default, of point forecasts those of regression, of
    quantile forecasts the pinball loss, a smooth form of it, and the weighted quantile loss. `unit`
    as for `petra.regression`, `preprocessing` and `meaning` as for `petra.classification`.
    """
    if isinstance(season, bool) or not isinstance(season, int) or season < 1:
        raise ConfigError(f"season: got {shown(season)}", hint="a number of steps, 1 for no season")
    levels = _levels(quantiles)
    split = Split.of(train, name="train", limit=limit).read_by(real_values)
    made = _Scorers(split, season, levels, scale)
    first = ("pinball" if levels else "mase") if metric is None else metric
    given = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    rest = [made.scorer(one, where=f"metrics[{i}]") for i, one in enumerate(given)]
    usual = (Pinball(levels), QuantileHuber(levels), WeightedQuantile(levels)) if levels else LOSSES
    return Forecasting(
        train=split,
        val=Split.of(val, name="val", limit=limit),
        test=Split.of(test, name="test", limit=limit),
        augment=augment,
        quantiles=levels,
        measured=as_scorers(made.scorer(first, where="metric"), rest),
        trained=as_losses(usual if loss is None else loss),
        unit=unit_of(unit, split),
        preprocessing=preprocessing,
        meaning=meaning,
    )


def _levels(quantiles: Iterable[float]) -> Levels:
    try:
        levels = tuple(float(q) for q in quantiles)
    except (TypeError, ValueError):
        levels = (math.nan,)
    if not all(a < b for a, b in pairwise((0.0, *levels, 1.0))):
        raise ConfigError(
            f"quantiles: got {shown(quantiles)}",
            hint="levels between 0 and 1 in rising order, as the model's last axis has them",
        )
    return levels


@dataclass(frozen=True)
class _Scorers:
    """Makes scorers of what is given for one task."""

    train: Split
    season: int
    levels: Levels
    scale: object

    def scorer(self, given: object, *, where: str) -> Scorer:
        if given == "pinball":
            return InTime(MeanPinball(self.levels or (MEDIAN,)))
        if given == "mase":
            point = self._median(where, "mase")
            scale = naive_error(self.train, self.season, self.scale)
            return InTime(MeanAbsoluteScaledError(scale), point)
        found = as_scorer(given, where=where)
        if isinstance(found, InTime):
            return found
        if isinstance(found, FunctionScorer):
            return found if found.groups else replace(found, groups=in_blocks)
        if isinstance(found, (TorchMetric, *OWN.values())):
            return InTime(found, self._median(where, found.metric.name))
        return InTime(found, every=found.every)

    def _median(self, where: str, name: str) -> int | None:
        """The number of the median among the quantiles; None of point forecasts."""
        if not self.levels:
            return None
        if MEDIAN not in self.levels:
            raise ConfigError(
                f"{where}: {name} is of the median, and the quantiles are {shown(self.levels)}",
                hint="metric='pinball', or a model that predicts the quantile 0.5 too",
            )
        return self.levels.index(MEDIAN)
