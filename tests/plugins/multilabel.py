"""Tagging as a task of a third party: several labels for an item, each there or not.

Everything here is a third party's: it imports petra, and petra does not know it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from petra.core.errors import DataError
from petra.core.metric import Metric, task_metric
from petra.space.declare import parameter
from petra.space.domains import Real
from petra.tasks.base import Task
from petra.tasks.data import Split
from petra.tasks.inputs import Outputs, main_output
from petra.tasks.losses import Distance, Loss
from petra.tasks.scorers import ItemScorer, ResampledScorer, Scorer
from petra.tasks.sources import Reader
from petra.tasks.targets import real_values

LABELS, WIDTH = 5, 24


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """Mean over items and labels."""

    name: ClassVar[str] = "bce"

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(main_output(outputs), target)


@dataclass(frozen=True)
class Asymmetric(Loss):
    """Labels that are not there, which most are, count less the surer the model is, and not at all
    below a margin: p_m^gamma log(1 - p_m) with p_m = max(p - margin, 0) (Ridnik et al. 2021).
    """

    name: ClassVar[str] = "asymmetric"

    absent_gamma: float = parameter(
        4.0, Real(1.0, 6.0), "how much less labels count that are not there", limits=Real(0.0, 20.0)
    )
    margin: float = parameter(
        0.05,
        Real(0.0, 0.2),
        "probability below which they do not count",
        limits=Real(0.0, 0.9),
    )

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        logits = main_output(outputs)
        there = -functional.logsigmoid(logits)
        p = (torch.sigmoid(logits) - self.margin).clamp(min=1e-12)
        absent = -(p**self.absent_gamma) * torch.log1p(-p.clamp(max=1 - 1e-6))
        return torch.where(target > 0.5, there, absent).mean()


@dataclass(frozen=True)
class LabelDivergence(Distance):
    """T^2 times the divergence of each label's two probabilities, softened by T."""

    temperature: float = parameter(
        2.0, Real(1.0, 8.0), "softening of both probabilities", limits=Real(0.1, 100.0)
    )

    def __call__(self, student: Outputs, teacher: Outputs) -> Tensor:
        ours, theirs = (main_output(o) / self.temperature for o in (student, teacher))
        p = torch.sigmoid(theirs)
        cross = functional.binary_cross_entropy_with_logits(ours, p)
        entropy = functional.binary_cross_entropy_with_logits(theirs, p)
        return (cross - entropy) * self.temperature**2


def average_precision(scores: Tensor, present: Tensor) -> float:
    """Mean, over the items (n,) that are `present`, of the share of such items among those that are
    scored at least as high; of equal scores, those that are absent come first.
    """
    order = (-scores.double() + 1e-12 * present.double()).argsort()
    hits = present[order].double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / hits.sum())


@dataclass(frozen=True)
class MeanAveragePrecision(ResampledScorer):
    """Average precision in the mean over labels."""

    @property
    def metric(self) -> Metric:
        return task_metric("mean_average_precision", title="mAP", maximize=True, digits=3)

    def value(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> float:
        scores = main_output(outputs)
        found = [average_precision(scores[:, k], targets[:, k] > 0.5) for k in range(LABELS)]
        return sum(found) / LABELS


@dataclass(frozen=True)
class HammingLoss(ItemScorer):
    """Share of an item's labels that are wrong."""

    @property
    def metric(self) -> Metric:
        return task_metric("hamming", title="Hamming loss", maximize=False)

    def items(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Tensor:
        return ((main_output(outputs) > 0) != (targets > 0.5)).double().mean(1)


@dataclass(frozen=True)
class Tagging(Task):
    """Targets (n, labels) of 0 and 1, predictions (n, labels) of logits."""

    def reader(self) -> Reader:
        return real_values

    def losses(self) -> tuple[Loss, ...]:
        return BinaryCrossEntropy(), Asymmetric()

    def distance(self) -> Distance:
        return LabelDivergence()

    def scorers(self) -> tuple[Scorer, ...]:
        return MeanAveragePrecision(), HammingLoss()

    def check(self, prediction: Tensor, target: Tensor, *, where: str) -> None:
        if prediction.shape != target.shape or not ((target == 0) | (target == 1)).all():
            raise DataError(
                f"{where}: the model returns shape {tuple(prediction.shape)}, targets are"
                f" {tuple(target.shape)}",
                hint="targets are 0 or 1 for each label, predictions a logit for each",
            )


def scenes(n: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Items (n, WIDTH) in which a third of the labels leave their pattern, and labels (n, LABELS).

    The patterns are the same for every seed.
    """
    patterns = torch.randn(LABELS, WIDTH, generator=torch.Generator().manual_seed(99))
    g = torch.Generator().manual_seed(seed)
    labels = (torch.rand(n, LABELS, generator=g) < 1 / 3).float()
    strength = 0.5 + torch.rand(n, LABELS, generator=g)
    return labels * strength @ patterns + 1.5 * torch.randn(n, WIDTH, generator=g), labels


def tagging(train: int = 500, val: int = 250, test: int = 250) -> Tagging:
    sizes = {"train": train, "val": val, "test": test}
    return Tagging(
        *(Split.of(scenes(n, seed=i), name=name) for i, (name, n) in enumerate(sizes.items()))
    )


def tagger() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, LABELS))
