"""Class weights: in the losses, not in the metrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import petra
from petra.core.errors import ConfigError, DataError
from petra.intake import examine
from petra.tasks.base import Task
from petra.tasks.class_losses import CrossEntropy, Focal
from petra.testing.measures_suites import Batch, LossSuite, TaskSuite
from petra.training.loop import TrainConfig, fit, predict

G = torch.Generator().manual_seed(0)
Y = torch.tensor([0] * 50 + [1] * 8 + [2] * 2)
X = functional.one_hot(Y, 3).float() + 0.8 * torch.randn(60, 3, generator=G)
PAIR = (X, Y)
WEIGHTS = (1.0, 4.0, 10.0)


@pytest.mark.parametrize(
    "one", [CrossEntropy(weights=WEIGHTS), Focal(weights=WEIGHTS)], ids=lambda loss: loss.name
)
class TestWeighted(LossSuite):
    @pytest.fixture(autouse=True)
    def chosen(self, one: CrossEntropy) -> None:
        self.loss = one  # type: ignore[misc]

    @pytest.fixture
    def batch(self) -> Batch:
        return {"output": torch.randn(60, 3, generator=G)}, Y


class TestTask(TaskSuite):
    @pytest.fixture
    def problem(self) -> tuple[nn.Module, Task]:
        return nn.Linear(3, 3), petra.classification(PAIR, PAIR, PAIR, weights="balanced")


def test_weighted_losses_by_loops() -> None:
    logits = torch.randn(60, 3, generator=G)
    log_p = torch.log_softmax(logits, 1)
    plain = focal = total = 0.0
    for row, label in zip(log_p.tolist(), Y.tolist(), strict=True):
        weight, p = WEIGHTS[label], math.exp(row[label])
        plain -= weight * row[label]
        focal -= weight * (1 - p) ** 2 * row[label]
        total += weight
    outputs = {"output": logits}
    found = CrossEntropy(weights=WEIGHTS)(outputs, Y)
    assert float(found) == pytest.approx(plain / total, rel=1e-5)
    assert float(Focal(weights=WEIGHTS)(outputs, Y)) == pytest.approx(focal / total, rel=1e-5)
    ones = (1.0, 1.0, 1.0)
    for loss in (CrossEntropy(label_smoothing=0.1), Focal()):
        same = type(loss)(weights=ones).having({"label_smoothing": 0.1})
        assert float(same(outputs, Y)) == pytest.approx(float(loss(outputs, Y)), rel=1e-6)


def test_balanced_weights_are_those_of_the_field() -> None:
    expected = compute_class_weight("balanced", classes=np.arange(3), y=Y.numpy())
    loader = DataLoader(TensorDataset(X, Y), batch_size=7, shuffle=True)
    for train in (PAIR, loader, petra.ragged([row[:, None] for row in X], Y)):
        task = petra.classification(train, PAIR, PAIR, weights="balanced")
        for loss in task.losses():
            assert loss.weights == pytest.approx(tuple(expected))  # type: ignore[attr-defined]


def test_labels_that_are_text_are_counted_too() -> None:
    words = [("low", "mid", "high")[i] for i in Y.tolist()]
    task = petra.classification(
        (X, words), PAIR, PAIR, classes=["low", "mid", "high"], weights="balanced"
    )
    assert task.losses()[0].weights == pytest.approx((0.4, 2.5, 10.0))  # type: ignore[attr-defined]


def test_a_class_without_items_weighs_as_one() -> None:
    some = (X[:58], torch.where(Y[:58] == 1, 2, 0))
    task = petra.classification(some, PAIR, PAIR, weights="balanced")
    assert task.losses()[0].weights[1] == 1.0  # type: ignore[attr-defined]
    examine(nn.Linear(3, 5), task)


def test_the_search_s_parameters_keep_the_weights() -> None:
    task = petra.classification(PAIR, PAIR, PAIR, weights=WEIGHTS)
    moved = task.loss("focal").having({"gamma": 3.0})
    assert moved == Focal(gamma=3.0, weights=WEIGHTS)


def test_rare_classes_are_found_and_the_metric_counts_items() -> None:
    def trained(weights: object) -> Tensor:
        torch.manual_seed(0)
        task = petra.classification(PAIR, PAIR, PAIR, weights=weights)
        model = nn.Linear(3, 3)
        config = TrainConfig(epochs=30, lr=0.05, optimizer="adamw", batch_size=20)
        fit(model, task, config, seed=0)
        logits, _ = predict(model, task.val)
        hits = (logits.argmax(1) == Y).double()
        assert task.score(logits, Y).mean == pytest.approx(float(hits.mean()))
        return torch.stack([hits[c == Y].mean() for c in range(3)])

    plain, balanced = trained(None), trained("balanced")
    assert float(balanced[1:].mean()) > float(plain[1:].mean()) + 0.2
    assert float(balanced[0]) < float(plain[0])


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("equal", "weights: got 'equal'"),
        (3.0, "weights: got 3.0"),
        ([1.0, 2.0], "class 2 of the train split has none"),
        ([1.0, 2.0, 0.0], "class 2 has 0.0"),
        ([1.0, 2.0, math.nan], "class 2 has nan"),
        ([[1.0, 2.0, 3.0]], r"got shape \(1, 3\)"),
    ],
)
def test_what_is_no_weights_is_refused(weights: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        petra.classification(PAIR, PAIR, PAIR, weights=weights)


def test_numbers_of_something_else_are_not_counted() -> None:
    """Weights of a billion classes would fill the memory before anything is said."""
    customers = (X, Y + 10**9)
    with pytest.raises(DataError, match="train split: the label 1000000002 is no class index"):
        petra.classification(customers, PAIR, PAIR, weights="balanced")


def test_weights_for_other_losses_and_other_models_are_refused() -> None:
    with pytest.raises(ConfigError, match="the loss cross_entropy takes none"):
        petra.classification(PAIR, PAIR, PAIR, loss=functional.cross_entropy, weights="balanced")
    task = petra.classification(PAIR, PAIR, PAIR, weights=[1.0, 2.0, 3.0, 4.0])
    with pytest.raises(DataError, match="4 class weights, and the model has 3 outputs"):
        examine(nn.Linear(3, 3), task)
