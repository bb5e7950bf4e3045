"""Weights of classes for losses: given, or such that rare classes count as much as common ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from petra.core.errors import ConfigError, DataError
from petra.core.text import shown
from petra.tasks.class_losses import ClassLoss
from petra.tasks.data import Split
from petra.tasks.losses import Loss
from petra.tasks.tensors import as_tensor

BALANCED = "balanced"
MOST = 10**6
"""Classes: labels beyond are numbers of something else, such as customers."""

HINT = f"{BALANCED!r}, or a positive number for each output of the model, in their order"
_BATCH = 1024


def weighted(losses: Iterable[Loss], given: object, train: Split) -> tuple[Loss, ...]:
    """The losses with weights of classes: a number for each output of the model in their order, or
    "balanced". `train` has class indices as targets. Costs a pass over it where it is not in
    memory.

    Raises ConfigError for weights that are neither, or too few, and for a loss that takes none;
    DataError for labels that are no class indices.
    """
    labels = _labels(train)
    last = int(labels.max()) if len(labels) else -1
    if isinstance(given, str) and given == BALANCED:
        if last >= MOST:
            raise DataError(
                f"train split: the label {last} is no class index",
                hint="map raw labels to class indices first",
            )
        weights = balanced(labels)
    else:
        weights = _numbers(given)
        if last >= len(weights):
            raise ConfigError(
                f"weights: {len(weights)}, and class {last} of the train split has none",
                hint=HINT,
            )
    found = []
    for loss in losses:
        if not isinstance(loss, ClassLoss):
            raise ConfigError(
                f"weights: the loss {loss.name} takes none",
                hint="weigh inside of it, or derive it from petra.tasks.class_losses.ClassLoss",
            )
        found.append(replace(loss, weights=weights))
    return tuple(found)


def balanced(labels: Tensor) -> tuple[float, ...]:
    """n / (k n_c) for each class c up to the last of the labels (n,), k of them having n_c > 0
    items (King & Zeng 2001, as scikit-learn has it): every class has the same weight in all. 1 for
    a class without items.
    """
    items = torch.bincount(labels)
    present = int((items > 0).sum())
    weights = torch.where(items > 0, len(labels) / (present * items.double()), 1.0)
    return tuple(weights.tolist())


def _labels(train: Split) -> Tensor:
    labels = train.targets()
    if labels is None:
        labels = torch.cat([target for _, target in train.batches(_BATCH)])
    return labels[labels >= 0]  # others are refused where all data is examined


def _numbers(given: object) -> tuple[float, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ConfigError(f"weights: got {shown(given)}", hint=HINT)
    numbers = as_tensor(given, what="weights")
    if numbers.ndim != 1:
        raise ConfigError(f"weights: got shape {tuple(numbers.shape)}", hint=HINT)
    return tuple(float(x) for x in numbers)
