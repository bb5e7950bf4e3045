"""What metrics by name would get wrong without a word."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from metric_data import (
    ALL,
    AROUND,
    CLASSES,
    CLASSIFIED,
    MANY,
    NEAR,
    RARE,
    REAL,
    SEVERAL,
    TWO,
    TWO_CLASSES,
    VALUES,
    G,
    N,
    probability,
)
from sklearn import metrics as sk
from torch import Tensor
from torch.nn import functional

import petra
from petra.core.errors import ConfigError
from petra.tasks.scorers import scorer
from petra.tasks.torchmetric import torch_metric

pytest.importorskip("torchmetrics")


def test_whether_logits_lie_between_0_and_1_changes_nothing() -> None:
    """torchmetrics takes such for probabilities, which ranks items otherwise."""
    small = MANY / 100 + 0.5
    for name in ("roc_auc", "average_precision"):
        found = torch_metric(name).value({"output": small}, ALL, torch.arange(N))
        expected = CLASSES[name](small.numpy(), ALL.numpy())
        assert found == pytest.approx(expected, abs=1e-6)
        told = torch_metric(name).value({"output": torch.softmax(small, 1)}, ALL, torch.arange(N))
        assert told == pytest.approx(expected, abs=1e-4), "probabilities are taken as they are"


@pytest.mark.parametrize("name", ["roc_auc", "average_precision", "balanced_accuracy"])
def test_a_class_without_items_has_no_share_in_the_mean(name: str) -> None:
    wide = torch.cat([MANY, MANY[:, :1] - 1], 1)
    found = torch_metric(name).value({"output": wide}, ALL, torch.arange(N))
    chance = probability(wide.numpy())
    if name == "balanced_accuracy":
        labels = ALL.numpy(), wide.argmax(1).numpy()
        expected = sk.recall_score(*labels, labels=[0, 1, 2], average="macro")
    else:
        of = sk.roc_auc_score if name == "roc_auc" else sk.average_precision_score
        expected = float(np.mean([of((c == ALL).numpy(), chance[:, c]) for c in range(3)]))
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shape", [(N,), (N, 1)])
@pytest.mark.parametrize("name", [*TWO_CLASSES])
def test_one_logit_says_which_of_two(name: str, shape: tuple[int, ...]) -> None:
    """As a task of one's own with a binary cross entropy has it, its targets real numbers."""
    logit, target = (TWO[:, 1] - TWO[:, 0]).reshape(shape), RARE.float().reshape(shape)
    pair = (torch.zeros(N, 4), target)
    loss = functional.binary_cross_entropy_with_logits
    task = petra.task(pair, pair, pair, loss=loss, score=name)
    expected = TWO_CLASSES[name](TWO.numpy(), RARE.numpy())
    assert task.score(logit, target).mean == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("predicted", "targets", "many"), [(TWO, RARE, False), (MANY, ALL, True)])
def test_a_model_may_choose_classes_itself(predicted: Tensor, targets: Tensor, many: bool) -> None:
    """Whole numbers, booleans of two: they are no logits."""
    chosen, oracles = predicted.argmax(1), CLASSES if many else TWO_CLASSES
    forms = [chosen, chosen.int()[:, None]] + ([] if many else [chosen.bool()])
    for name in ("accuracy", "balanced_accuracy", "f1", "f1_macro", "matthews"):
        expected = oracles[name](predicted.numpy(), targets.numpy())
        for form in forms:
            found = torch_metric(name).value({"output": form}, targets, torch.arange(N))
            assert found == pytest.approx(expected, abs=1e-6), (name, form.dtype)
        whole = (1000 * predicted).long()  # logits all the same
        found = torch_metric(name).value({"output": whole}, targets, torch.arange(N))
        assert found == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("name", ["roc_auc", "average_precision", "balanced_accuracy"])
@pytest.mark.parametrize("ignored", [-1, 255])
def test_pixels_that_are_ignored_are_of_no_class(name: str, ignored: int) -> None:
    some = torch.where(torch.arange(N) % 5 == 0, ignored, ALL)
    found = torch_metric(name, ignore_index=ignored).value({"y": MANY}, some, torch.arange(N))
    kept = some != ignored
    expected = torch_metric(name).value({"y": MANY[kept]}, ALL[kept], torch.arange(N)[kept])
    assert found == pytest.approx(expected, abs=1e-6)


def test_an_average_that_is_asked_for_is_that_of_two_classes_too() -> None:
    ids, outputs = torch.arange(N), {"y": TWO}
    found = torch_metric("f1", average="macro").value(outputs, RARE, ids)
    assert found == pytest.approx(CLASSIFIED["f1_macro"](TWO.numpy(), RARE.numpy()), abs=1e-6)
    assert found != pytest.approx(torch_metric("f1").value(outputs, RARE, ids), abs=1e-3)
    assert torch_metric("roc_auc", num_classes=2).value(outputs, RARE, ids) > 0.5


def test_accuracy_takes_options() -> None:
    found = torch_metric("accuracy", top_k=2).value({"y": MANY}, ALL, torch.arange(N))
    best = MANY.topk(2, 1).indices == ALL[:, None]
    assert found == pytest.approx(float(best.any(1).double().mean()))


@pytest.mark.parametrize("name", ["F1Score", "auroc", "matthews_corr_coef"])
def test_a_name_that_stands_for_several_classes_is_none(name: str) -> None:
    """It would fail where something is measured, for want of a task."""
    with pytest.raises(ConfigError, match=f"there is no metric '{name}'"):
        petra.classification(*[(torch.zeros(N, 4), ALL)] * 3, metric=name)


def test_values_far_from_0_keep_their_digits() -> None:
    """A spread of 1 around 10,000: sums of squares in float32 would leave noise of R2."""
    target = 10_000 + torch.randn(5000, generator=G)
    near = target + 0.5 * torch.randn(5000, generator=G)
    for name in ("r2", "pearson"):
        found = torch_metric(name).value({"y": near[:, None]}, target, torch.arange(5000))
        assert found == pytest.approx(VALUES[name](near.numpy(), target.numpy()), abs=1e-5)


def test_a_model_that_says_the_same_of_everything_is_not_correlated() -> None:
    ids, flat = torch.arange(N), torch.full((N, 1), 3.0)
    assert torch_metric("pearson").value({"y": flat}, REAL, ids) == 0.0
    one_flat = torch.cat([AROUND[:, :2], flat], 1)
    found = torch_metric("pearson").value({"y": one_flat}, SEVERAL, ids)
    both = VALUES["pearson"](AROUND[:, :2].numpy(), SEVERAL[:, :2].numpy())
    assert found == pytest.approx(2 / 3 * both, abs=1e-6)
    for value in (1.0, 0.1):  # a mean of tenths is none
        level = torch.full((N,), value)
        for name in ("pearson", "spearman"):
            assert torch_metric(name).value({"y": level}, REAL, ids) == 0.0
            nothing = torch_metric(name).value({"y": NEAR}, level, ids)
            assert math.isnan(nothing), "targets that are all alike correlate with nothing"


def test_pixels_have_classes_too() -> None:
    target = torch.randint(0, 3, (12, 5, 4), generator=G)
    logits = functional.one_hot(target, 3).movedim(-1, 1) + torch.randn(12, 3, 5, 4, generator=G)
    pair = (torch.zeros(12, 3, 5, 4), target)
    task = petra.task(
        pair, pair, pair, loss=functional.cross_entropy, score="accuracy",
        metrics=["multiclass_jaccard_index"],
    )  # fmt: skip
    found = task.scores({"output": logits}, target)
    shares = (logits.argmax(1) == target).double().flatten(1).mean(1)
    assert found["quality"].mean == pytest.approx(float(shares.mean()))
    assert found["quality"].stderr == pytest.approx(float(shares.std()) / math.sqrt(12))
    flat = logits.argmax(1).flatten().numpy(), target.flatten().numpy()
    expected = sk.jaccard_score(flat[1], flat[0], average="macro")
    assert found["multiclass_jaccard_index"].mean == pytest.approx(expected, abs=1e-6)
    other = {"output": logits.flip(0)}
    change = task.scorers()[0].difference({"output": logits}, other, target, torch.arange(12))
    assert change.mean == pytest.approx(
        found["quality"].mean - task.score(logits.flip(0), target).mean
    )


def test_metrics_of_forecasts_are_found_where_they_are() -> None:
    with pytest.raises(ConfigError) as caught:
        torch_metric("mase")
    assert "petra.forecasting" in str(caught.value.hint)


def test_a_score_of_each_item_is_called_once() -> None:
    calls = []

    def squares(prediction: Tensor, targets: Tensor) -> Tensor:
        calls.append(len(targets))
        return (prediction - targets).square()

    def mean(prediction: Tensor, targets: Tensor) -> float:
        return float((prediction - targets).square().double().mean())

    each, whole = scorer(squares, maximize=False), scorer(mean, maximize=False)
    ids, outputs, other = torch.arange(N), {"y": NEAR}, {"y": NEAR + 0.1}
    found = each.measure(outputs, REAL, ids)
    assert len(calls) == 1
    assert found.mean == pytest.approx(whole.measure(outputs, REAL, ids).mean)
    assert found.stderr == pytest.approx(whole.measure(outputs, REAL, ids).stderr, rel=0.3)
    change = each.difference(outputs, other, REAL, ids)
    assert len(calls) == 3
    drawn = whole.difference(outputs, other, REAL, ids)
    assert change.mean == pytest.approx(drawn.mean)
    assert change.stderr == pytest.approx(drawn.stderr, rel=0.3)
    assert each.value(outputs, REAL, ids) == found.mean
