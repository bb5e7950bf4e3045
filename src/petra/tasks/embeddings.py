"""Encoders of text, or of anything else, judged by how well the likeness of their embeddings ranks
pairs: as sentence encoders are (the STS benchmark, Cer et al. 2017; Reimers & Gurevych 2019).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from petra.core.errors import ConfigError, DataError
from petra.core.metric import task_metric
from petra.tasks.base import Augment, Task
from petra.tasks.data import Split
from petra.tasks.inputs import (
    Inputs,
    Outputs,
    as_inputs,
    batch_size,
    call,
    main_output,
    map_inputs,
    named,
    prediction,
    unnamed,
)
from petra.tasks.losses import Distance, Loss, SquaredDistance
from petra.tasks.scorers import FunctionScorer, Scorer
from petra.tasks.targets import real_values
from petra.tasks.tensors import as_tensor

BATCH = 64
_PAIR, _SCORE = -2, -1
"""Where a target has the number of the item's pair and the pair's score, behind the embedding that
the untouched model gives it."""

CORRELATIONS = ("spearman", "pearson")


@dataclass(frozen=True)
class CosineLoss(Loss):
    """1 - the cosine between an embedding and the untouched model's of the same item."""

    name: ClassVar[str] = "cosine"

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        return 1 - functional.cosine_similarity(main_output(outputs), target[:, :_PAIR]).mean()


@dataclass(frozen=True)
class EmbeddingError(Loss):
    """Mean squared distance to the untouched model's embeddings (Reimers & Gurevych 2020)."""

    name: ClassVar[str] = "mse"

    def __call__(self, outputs: Outputs, target: Tensor) -> Tensor:
        return functional.mse_loss(main_output(outputs), target[:, :_PAIR])


@dataclass(frozen=True)
class Embeddings(Task):
    """Embeddings (n, d); targets (n, d + 2) as `embeddings` makes them."""

    measured: tuple[Scorer, ...] = ()

    def losses(self) -> tuple[Loss, ...]:
        return CosineLoss(), EmbeddingError()

    def distance(self) -> Distance:
        return SquaredDistance()

    def scorers(self) -> tuple[Scorer, ...]:
        return self.measured

    def reader(self) -> Any:
        return real_values

    def check(self, prediction: Tensor, target: Tensor, *, where: str) -> None:
        if prediction.ndim != 2 or prediction.shape[1] != target.shape[1] + _PAIR:
            raise DataError(
                f"{where}: the model returns shape {tuple(prediction.shape)}, the one that the task"
                f" was made with {(len(target), target.shape[1] + _PAIR)}",
                hint="make the task with the model that is compressed: one vector for each item",
            )


def embeddings(
    model: nn.Module,
    train: object,
    val: object,
    test: object,
    *,
    metric: str = "spearman",
    augment: Augment | None = None,
) -> Embeddings:
    """A task for a `model` that makes a vector (n, d) of each item, such as a sentence encoder.

    train: inputs alone; stages train towards the embeddings that `model` gives them. val, test:
    (first, second, scores) of pairs, two batches of inputs of n items and how alike a person finds
    each pair, (n,). The quality is the correlation, by rank (spearman) or plain (pearson), of the
    cosines between the pairs' embeddings with the scores; its errors are those of pairs.

    >>> task = petra.embeddings(encoder, corpus, (first, second, scores), test_pairs)

    Costs one pass of the model over all inputs. Raises DataError for what does not fit.
    """
    if metric not in CORRELATIONS:
        raise ConfigError(f"metric: got {metric!r}", hint=f"allowed: {', '.join(CORRELATIONS)}")
    found = as_inputs(train, where="train split")
    none = torch.full((batch_size(found),), -1.0)
    return Embeddings(
        _split(model, found, none, none, name="train"),
        _pairs(model, val, name="val"),
        _pairs(model, test, name="test"),
        augment=augment,
        measured=(_correlation(metric),),
    )


def _pairs(model: nn.Module, given: object, *, name: str) -> Split:
    where = f"{name} split"
    if not isinstance(given, tuple | list) or len(given) != 3:
        raise DataError(
            f"{where}: not (first, second, scores)", hint="two batches, and a score each"
        )
    first, second = (as_inputs(part, where=f"{where}, {i}") for i, part in enumerate(given[:2], 1))
    scores = as_tensor(given[2], what=f"{where}: scores").float()
    n = len(scores) if scores.ndim == 1 else -1
    if (
        not (batch_size(first) == batch_size(second) == n)
        or named(first).keys() != named(second).keys()
    ):
        raise DataError(
            f"{where}: {batch_size(first)} first items, {batch_size(second)} second ones, scores"
            f" {tuple(scores.shape)}",
            hint="a pair, of inputs of the same names, and one score for each",
        )
    # The two of a pair follow each other, so that they are in one batch wherever batches are cut.
    mixed = unnamed(
        {k: torch.stack([t, named(second)[k]], 1).flatten(0, 1) for k, t in named(first).items()},
        like=first,
    )
    pair = torch.arange(n).repeat_interleave(2)
    return _split(model, mixed, pair.float(), scores.repeat_interleave(2), name=name)


def _split(model: nn.Module, inputs: Inputs, pair: Tensor, score: Tensor, *, name: str) -> Split:
    made = _embedded(model, inputs, where=f"{name} split")
    return Split.of((inputs, torch.cat([made, pair[:, None], score[:, None]], 1)), name=name)


def _embedded(model: nn.Module, inputs: Inputs, *, where: str) -> Tensor:
    """What the model makes of all items, (n, d), in evaluation mode."""
    training, found = model.training, []
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, batch_size(inputs), BATCH):
                part = slice(start, start + BATCH)
                batch = map_inputs(inputs, itemgetter(part))
                found.append(prediction(call(model, batch)).float())
    finally:
        model.train(training)
    made = torch.cat(found)
    if made.ndim != 2 or not torch.isfinite(made).all():
        raise DataError(
            f"{where}: the model returns shape {tuple(made.shape)}, or no finite numbers",
            hint="one vector for each item: of token states, their mean over the mask",
        )
    return made


# -- the score -------------------------------------------------------------------------------------


def _correlation(metric: str) -> Scorer:
    described = task_metric(metric, maximize=True)
    function = spearman if metric == "spearman" else pearson
    return FunctionScorer(function, described, groups=_pair_of)


def _pair_of(targets: Tensor, ids: Tensor) -> Tensor:
    return targets[:, _PAIR].long()


def spearman(made: Tensor, targets: Tensor) -> float:
    """Rank correlation of the cosines of pairs of embeddings (n, d) with their scores."""
    from scipy.stats import rankdata

    cosines, scores = _cosines(made, targets)
    return _pearson(rankdata(cosines), rankdata(scores))


def pearson(made: Tensor, targets: Tensor) -> float:
    """The same without ranks."""
    return _pearson(*_cosines(made, targets))


def _cosines(made: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Of the pairs of which both items are there, as often as they are there."""
    order = torch.argsort(targets[:, _PAIR], stable=True)
    _, counts = torch.unique_consecutive(targets[order, _PAIR], return_counts=True)
    before = (counts.cumsum(0) - counts).repeat_interleave(counts)
    whole = (counts - counts % 2).repeat_interleave(counts)
    order = order[torch.arange(len(order)) - before < whole]
    first, second = made[order[0::2]].double(), made[order[1::2]].double()
    cosines = functional.cosine_similarity(first, second)
    return cosines.numpy(), targets[order[0::2], _SCORE].double().numpy()


def _pearson(x: Iterable[float], y: Iterable[float]) -> float:
    a, b = np.asarray(x, float), np.asarray(y, float)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else 0.0
