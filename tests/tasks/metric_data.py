"""Items, predictions and what scikit-learn and SciPy make of them, for metrics by name."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy import stats
from sklearn import metrics as sk
from torch.nn import functional

N = 205  # no multiple of the jackknife's groups, into which copies of an item then fall apart
G = torch.Generator().manual_seed(0)
ODDS = torch.tensor([0.6, 0.3, 0.1])
ALL = torch.multinomial(ODDS, N, replacement=True, generator=G)
MANY = functional.one_hot(ALL, 3).float() + torch.randn(N, 3, generator=G)
RARE = (torch.rand(N, generator=G) < 0.25).long()
TWO = torch.stack([torch.zeros(N), 2.0 * RARE - 1.5 + torch.randn(N, generator=G)], 1)
REAL = 20.0 + torch.randn(N, generator=G)
NEAR = REAL + 0.7 * torch.randn(N, generator=G)
SEVERAL = torch.randn(N, 3, generator=G)
AROUND = SEVERAL + torch.tensor([0.3, 0.6, 0.9]) * torch.randn(N, 3, generator=G)

Oracle = Callable[[np.ndarray, np.ndarray], float]


def probability(logits: np.ndarray) -> np.ndarray:
    return torch.softmax(torch.from_numpy(logits).double(), 1).numpy()


def of_labels(function: Callable[..., float], **options: object) -> Oracle:
    return lambda p, t: function(t, p.argmax(1), **options)


def of_second(function: Callable[..., float]) -> Oracle:
    return lambda p, t: function(t, probability(p)[:, 1])


def one_against_rest(function: Callable[..., float]) -> Oracle:
    return lambda p, t: float(np.mean([function(t == c, probability(p)[:, c]) for c in range(3)]))


def of_each(function: Callable[[np.ndarray, np.ndarray], float]) -> Oracle:
    """In the mean over outputs."""

    def mean(p: np.ndarray, t: np.ndarray) -> float:
        columns = zip(p.reshape(len(p), -1).T, t.reshape(len(t), -1).T, strict=True)
        return float(np.mean([function(a, b) for a, b in columns]))

    return mean


def root(p: np.ndarray, t: np.ndarray) -> float:
    return math.sqrt(float(((p.astype(np.float64) - t.reshape(p.shape)) ** 2).mean()))


CLASSIFIED = {
    "accuracy": of_labels(sk.accuracy_score),
    "balanced_accuracy": of_labels(sk.balanced_accuracy_score),
    "f1_macro": of_labels(sk.f1_score, average="macro"),
    "f1_weighted": of_labels(sk.f1_score, average="weighted"),
    "matthews": of_labels(sk.matthews_corrcoef),
}
TWO_CLASSES = {
    **CLASSIFIED,
    "f1": of_labels(sk.f1_score),
    "precision": of_labels(sk.precision_score),
    "recall": of_labels(sk.recall_score),
    "roc_auc": of_second(sk.roc_auc_score),
    "average_precision": of_second(sk.average_precision_score),
}
CLASSES = {
    **CLASSIFIED,
    "f1": of_labels(sk.f1_score, average="macro"),
    "roc_auc": one_against_rest(sk.roc_auc_score),
    "average_precision": one_against_rest(sk.average_precision_score),
}
VALUES = {
    "rmse": root,
    "mae": of_each(lambda p, t: float(np.abs(p.astype(np.float64) - t).mean())),
    "r2": of_each(lambda p, t: float(sk.r2_score(t.astype(np.float64), p))),
    "pearson": of_each(lambda p, t: float(stats.pearsonr(p.astype(np.float64), t)[0])),
    "spearman": of_each(lambda p, t: float(stats.spearmanr(p, t)[0])),
}
