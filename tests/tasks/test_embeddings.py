"""Encoders judged by the likeness of pairs: against SciPy, and with errors that are of pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from torch import nn
from torch.nn import functional

import petra
from petra.core.errors import ConfigError, DataError
from petra.tasks.embeddings import Embeddings, spearman

N = 40


def made(metric: str = "spearman") -> tuple[nn.Module, Embeddings, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Linear(6, 4)
    first, second, scores = torch.randn(N, 6), torch.randn(N, 6), torch.rand(N)
    second[: N // 2] = first[: N // 2] + 0.1 * torch.randn(N // 2, 6)
    scores[: N // 2] += 1
    task = petra.embeddings(
        model, torch.randn(30, 6), (first, second, scores), (second, first, scores), metric=metric
    )
    with torch.no_grad():
        cosines = functional.cosine_similarity(model(first), model(second))
    return model, task, torch.stack([cosines, scores])


@pytest.mark.parametrize(("metric", "oracle"), [("spearman", spearmanr), ("pearson", pearsonr)])
def test_the_quality_is_the_correlation_over_pairs(metric: str, oracle: object) -> None:
    model, task, known = made(metric)
    (inputs, targets), *more = task.val.batches(2 * N)
    assert not more
    assert len(inputs) == 2 * N
    with torch.no_grad():
        outputs = model(inputs)
    score = task.score(outputs, targets)
    assert score.mean == pytest.approx(oracle(*known.numpy())[0], abs=1e-6)  # type: ignore[operator]
    assert task.metric == metric
    assert task.maximize


def test_errors_are_those_of_pairs_not_of_items() -> None:
    model, task, known = made()
    (inputs, targets), *_ = task.val.batches(2 * N)
    stated = task.score(model(inputs).detach(), targets).stderr
    random, values = np.random.default_rng(0), known.numpy()
    drawn = [spearmanr(*values[:, random.integers(N, size=N)])[0] for _ in range(400)]
    assert 0.5 * np.std(drawn) < stated < 2 * np.std(drawn)


def test_halves_of_pairs_do_not_count_and_order_does_not_matter() -> None:
    model, task, _ = made()
    (inputs, targets), *_ = task.val.batches(2 * N)
    outputs = model(inputs).detach()
    whole = spearman(outputs[:20], targets[:20])
    assert spearman(outputs[:21], targets[:21]) == whole
    order = torch.randperm(20)
    assert spearman(outputs[order], targets[order]) == pytest.approx(whole)
    twice = torch.arange(20).repeat(2)
    assert spearman(outputs[twice], targets[twice]) == pytest.approx(whole)


def test_losses_vanish_for_the_model_itself() -> None:
    model, task, _ = made()
    inputs, targets = next(task.train.batches(30))
    own = {"output": model(inputs)}
    other = {"output": nn.Linear(6, 4)(inputs)}
    for loss in task.losses():
        assert float(loss(own, targets)) == pytest.approx(0, abs=1e-6)
        assert float(loss(other, targets)) > 0.01


def test_what_does_not_fit_is_said() -> None:
    model, x = nn.Linear(6, 4), torch.randn(5, 6)
    good = (x, x, torch.rand(5))
    with pytest.raises(ConfigError, match="metric: got 'kendall'"):
        petra.embeddings(model, x, good, good, metric="kendall")
    with pytest.raises(DataError, match="val split: not"):
        petra.embeddings(model, x, (x, torch.rand(5)), good)
    with pytest.raises(DataError, match="test split: 5 first items, 4 second"):
        petra.embeddings(model, x, good, (x, x[:4], torch.rand(5)))
    with pytest.raises(DataError, match=r"returns shape \(5, 2, 6\)"):
        petra.embeddings(nn.Unflatten(1, (2, 6)), torch.randn(5, 12), good, good)
