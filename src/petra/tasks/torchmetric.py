"""Any metric of torchmetrics by name (extra ``metrics``)."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from petra.core.errors import ConfigError, DataError, MissingExtra, did_you_mean
from petra.core.metric import Metric, task_metric
from petra.tasks.inputs import Outputs, main_output
from petra.tasks.scorers import ResampledScorer, Scorer
from petra.tasks.scores import OWN
from petra.tasks.value_losses import squeezed

AVERAGES = ("macro", "micro", "weighted")
# What people call them; all others go by torchmetrics' own names, in either spelling.
USUAL: Mapping[str, tuple[str, Mapping[str, Any]]] = {
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


@dataclass(frozen=True)
class TorchMetric(ResampledScorer):
    """A metric class of torchmetrics, made anew for every call with `options`; its standard error
    is found by the jackknife. Several values, of several outputs, are averaged.
    """

    described: Metric
    kind: type[Any]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metric(self) -> Metric:
        return self.described

    def value(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> float:
        predicted = main_output(outputs)
        options, name = dict(self.options), self.kind.__name__
        if name.startswith("Binary"):
            predicted = _of_second_class(predicted)
        elif name.startswith(("Multiclass", "Multilabel")):
            width = "num_classes" if name.startswith("Multiclass") else "num_labels"
            options.setdefault(width, predicted.shape[1])
        else:
            predicted, targets = _flat(predicted), _flat(targets).to(predicted.dtype)
            if predicted.ndim > 1 and "num_outputs" in inspect.signature(self.kind).parameters:
                options.setdefault("num_outputs", predicted.shape[1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of items on which it is not defined
            metric = self.kind(**options)
            metric.update(predicted.contiguous(), targets.contiguous())
            found = metric.compute()
        if not isinstance(found, Tensor):
            raise DataError(
                f"{self.described.name}: {name} returns {type(found).__name__}",
                hint="choose a metric that is one number",
            )
        return float(found.double().mean())


def _of_second_class(logits: Tensor) -> Tensor:
    """Probability of class 1, (n,), from logits (n, 2), or (n, 1) or (n,) of class 1 alone."""
    if logits.ndim > 1 and logits.shape[1] == 2:
        return torch.softmax(logits, 1)[:, 1]
    return torch.sigmoid(squeezed(logits))


def _flat(values: Tensor) -> Tensor:
    values = squeezed(values)
    return values.flatten(1) if values.ndim > 2 else values


def torch_metric(
    name: str, *, where: str = "metric", maximize: bool | None = None, **options: Any
) -> Scorer:
    """The scorer called `name`: one of petra's own (accuracy, rmse, mae), a usual name, with an
    average behind it where it has one ("f1_macro", "recall_weighted"), or the name of a class of
    `torchmetrics` ("MulticlassSpecificity", "multiclass_specificity").

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
            hint=did_you_mean(name, [*OWN, *USUAL, *by_spelling.values()]),
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
    return TorchMetric(task_metric(key, maximize=bool(up)), kind, {**more, **options})


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
    """Metrics of predictions and targets that torchmetrics has, by class name."""
    try:
        import torchmetrics
        from torchmetrics import classification, regression
    except ImportError:
        raise MissingExtra("torchmetrics", extra="metrics") from None
    found = {}
    for module in (classification, regression):
        for name in module.__all__:
            kind = getattr(module, name)
            if isinstance(kind, type) and issubclass(kind, torchmetrics.Metric):
                found[name] = kind
    return found
