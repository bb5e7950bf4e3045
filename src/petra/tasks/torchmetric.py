"""Any metric of torchmetrics by name (extra ``metrics``)."""

from __future__ import annotations

import inspect
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from petra.core.errors import ConfigError, DataError, MissingExtra, did_you_mean
from petra.core.metric import Metric, task_metric
from petra.tasks.inputs import Outputs, main_output
from petra.tasks.scorers import ResampledScorer, Scorer
from petra.tasks.scores import OWN, decides
from petra.tasks.value_losses import squeezed

AVERAGES = ("macro", "micro", "weighted")
FORECASTS = ("mase", "pinball")
# What people call them; all others go by torchmetrics' own names, in either spelling.
USUAL: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "accuracy": ("MulticlassAccuracy", {"average": "micro"}),  # with options; else petra's own
    "f1": ("MulticlassF1Score", {"average": "macro"}),
    "precision": ("MulticlassPrecision", {"average": "macro"}),
    "recall": ("MulticlassRecall", {"average": "macro"}),
    "balanced_accuracy": ("MulticlassAccuracy", {"average": "macro"}),
    "roc_auc": ("MulticlassAUROC", {"average": "macro"}),
    "average_precision": ("MulticlassAveragePrecision", {"average": "macro"}),
    "matthews": ("MulticlassMatthewsCorrCoef", {}),
    "cohen_kappa": ("MulticlassCohenKappa", {}),
    "calibration_error": ("MulticlassCalibrationError", {}),
    "mse": ("MeanSquaredError", {}),
    "mape": ("MeanAbsolutePercentageError", {}),
    "smape": ("SymmetricMeanAbsolutePercentageError", {}),
    "r2": ("R2Score", {}),
    "pearson": ("PearsonCorrCoef", {}),
    "spearman": ("SpearmanCorrCoef", {}),
    "kendall": ("KendallRankCorrCoef", {}),
}
# Of two classes, these names mean the metric of the second, as everywhere in the field.
OF_TWO: Mapping[str, str] = {
    "f1": "BinaryF1Score",
    "precision": "BinaryPrecision",
    "recall": "BinaryRecall",
    "roc_auc": "BinaryAUROC",
    "average_precision": "BinaryAveragePrecision",
}
# Who gives one of these means all classes.
MULTICLASS_OPTIONS = frozenset({"average", "num_classes", "top_k"})
# A class without items has none of these, and torchmetrics counts it as 0.
OF_CLASSES_PRESENT = frozenset(
    {"MulticlassAUROC", "MulticlassAveragePrecision", "MulticlassAccuracy", "MulticlassRecall"}
)


@dataclass(frozen=True)
class TorchMetric(ResampledScorer):
    """A metric class of torchmetrics, made anew for every call with `options`; its standard error
    is found by the jackknife. Several values, of several outputs, are averaged.

    Of two classes it is `of_two` where there is one. Classifiers return logits, of all classes or
    of the second of two alone, the probabilities of all, or, as whole numbers, the classes that
    they choose. Means over classes leave out those without items where none makes them defined; a
    correlation with predictions that are all alike is 0.
    """

    described: Metric
    kind: type[Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    of_two: type[Any] | None = None

    @property
    def metric(self) -> Metric:
        return self.described

    def value(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> float:
        predicted, name = main_output(outputs), self.kind.__name__
        if name.startswith(("Binary", "Multiclass")):
            found = self._of_classes(predicted, targets)
        elif name.startswith("Multilabel"):
            options = {"num_labels": predicted.shape[1], **self.options}
            found = self._computed(self.kind, predicted, targets.long(), options)
        else:
            found = self._of_values(predicted, targets)
        return float(found.double().mean())

    def _of_classes(self, predicted: Tensor, targets: Tensor) -> Tensor:
        options, targets = dict(self.options), _labels(targets, predicted)
        if decides(predicted, targets):
            predicted = _one_hot(predicted, targets, int(options.get("num_classes", 2)))
        likely, kind = _probabilities(predicted), self.kind
        classes = likely.shape[1]
        if self.of_two is not None and classes == 2:
            kind = self.of_two
            options.pop("average", None)
        if kind.__name__.startswith("Binary"):
            return self._computed(kind, likely[:, 1], targets, options)
        options.setdefault("num_classes", classes)
        if kind.__name__ not in OF_CLASSES_PRESENT or options.get("average") != "macro":
            return self._computed(kind, likely, targets, options)
        found = self._computed(kind, likely, targets, options | {"average": "none"})
        ignored = options.get("ignore_index")
        judged = targets.flatten() if ignored is None else targets[targets != ignored]
        items = torch.bincount(judged, minlength=classes)
        if kind.__name__ == "MulticlassAUROC":  # which needs items of other classes too
            return found[(items > 0) & (items < len(judged))]
        return found[items > 0]

    def _of_values(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """In float64: sums of squares of values far from 0 would be rounding in less."""
        predicted, targets = _flat(predicted).double(), _flat(targets).double()
        options = dict(self.options)
        if predicted.ndim > 1 and "num_outputs" in inspect.signature(self.kind).parameters:
            options.setdefault("num_outputs", predicted.shape[1])
        found = self._computed(self.kind, predicted, targets, options, torch.float64)
        if not self.kind.__name__.endswith("CorrCoef"):
            return found
        flat, varied = (predicted == predicted[:1]).all(0), (targets != targets[:1]).any(0)
        # Of what is all alike, there would be NaN, or what rounding left.
        return found.masked_fill(flat, 0.0).masked_fill(~varied, math.nan)

    def _computed(
        self,
        kind: type[Any],
        predicted: Tensor,
        targets: Tensor,
        options: Mapping[str, Any],
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of items on which it is not defined
            metric = kind(**options)
            if dtype is not None:
                metric.set_dtype(dtype)
            metric.update(predicted.contiguous(), targets.contiguous())
            found = metric.compute()
        if not isinstance(found, Tensor):
            raise DataError(
                f"{self.described.name}: {kind.__name__} returns {type(found).__name__}",
                hint="choose a metric that is one number",
            )
        return found


def _probabilities(predicted: Tensor) -> Tensor:
    """Of all classes, (n, classes, ...), float64: from logits or probabilities of that shape, or
    from logits (n,) or (n, 1, ...) of the second of two.
    """
    predicted = predicted.double()
    if predicted.ndim == 1 or predicted.shape[1] == 1:
        second = torch.sigmoid(predicted if predicted.ndim == 1 else predicted[:, 0])
        return torch.stack([1 - second, second], 1)
    if (predicted >= 0).all() and ((predicted.sum(1) - 1).abs() < 1e-4).all():
        return predicted
    return torch.softmax(predicted, 1)


def _one_hot(chosen: Tensor, targets: Tensor, least: int) -> Tensor:
    """Chosen classes, as many as targets, as probabilities (n, classes, ...): of `least` classes,
    or as many as there are.
    """
    chosen = chosen.long().reshape(targets.shape)
    classes = max(least, int(chosen.max()) + 1, int(targets.max()) + 1)
    return functional.one_hot(chosen, classes).movedim(-1, 1).double()


def _labels(targets: Tensor, predicted: Tensor) -> Tensor:
    """Class indices, (n, ...), of which losses may want real numbers, or an axis of one."""
    if targets.ndim > 1 and targets.ndim == predicted.ndim and targets.shape[1] == 1:
        targets = targets[:, 0]
    return targets.long()


def _flat(values: Tensor) -> Tensor:
    values = squeezed(values)
    return values.flatten(1) if values.ndim > 2 else values


def torch_metric(
    name: str, *, where: str = "metric", maximize: bool | None = None, **options: Any
) -> Scorer:
    """The scorer called `name`: one of petra's own (accuracy, rmse, mae), a usual name, with an
    average behind it where it has one ("f1_macro", "recall_weighted"), or the name of a class of
    `torchmetrics` ("MulticlassSpecificity", "multiclass_specificity"). Without an average, f1,
    precision, recall, roc_auc and average_precision are the second class's where there are two,
    else the mean over classes.

    `options` go to the class. Raises ConfigError for a name that it lacks, MissingExtra where
    torchmetrics is not installed.
    """
    if name in OWN and not options:
        return OWN[name]()
    wanted, more = _usual(name)
    classes = _classes()
    by_spelling = {_plain(known): known for known in classes}
    found = by_spelling.get(_plain(wanted))
    if found is None:
        raise ConfigError(
            f"{where}: there is no metric {name!r}",
            hint="it is one of forecasts: petra.forecasting(..., metric=...)"
            if name in FORECASTS
            else did_you_mean(name, [*OWN, *USUAL, *by_spelling.values()]),
        )
    kind = classes[found]
    up = kind.higher_is_better if maximize is None else maximize
    if up is None and found.endswith("CorrCoef"):
        up = True  # torchmetrics leaves open whether a perfect correlation is wanted
    if up is None:
        raise ConfigError(
            f"{where}: torchmetrics does not say whether more or less {found} is better",
            hint=f"petra.torch_metric({name!r}, maximize=True), or False",
        )
    key = re.sub(r"\W+", "_", name).strip("_")
    of_two = None
    if name in OF_TWO and not options.keys() & MULTICLASS_OPTIONS:
        of_two = classes[OF_TWO[name]]
    return TorchMetric(task_metric(key, maximize=bool(up)), kind, {**more, **options}, of_two)


def _usual(name: str) -> tuple[str, dict[str, Any]]:
    """The class of a usual name and its options; other names as they are."""
    base, _, average = name.rpartition("_")
    if average in AVERAGES and base in USUAL and "average" in USUAL[base][1]:
        return USUAL[base][0], {"average": average}
    found, options = USUAL.get(name, (name, {}))
    return found, dict(options)


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _classes() -> dict[str, type[Any]]:
    """Metrics of predictions and targets that torchmetrics has, by class name; without those names
    that mean one of several by their `task`.
    """
    try:
        import torchmetrics
        from torchmetrics import classification, regression
    except ImportError:
        raise MissingExtra("torchmetrics", extra="metrics") from None
    found = {}
    for module in (classification, regression):
        names = set(module.__all__)
        for name in module.__all__:
            kind = getattr(module, name)
            if names & {f"Binary{name}", f"Multiclass{name}"}:
                continue
            if isinstance(kind, type) and issubclass(kind, torchmetrics.Metric):
                found[name] = kind
    return found
