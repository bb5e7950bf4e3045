"""Losses and metrics against formulas written out; labels and shapes checked."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import petra
from petra.core.errors import ConfigError, DataError
from petra.methods.distill.distill import Distill
from petra.methods.tune.tune import Tune
from petra.space.domains import Choice, Real
from petra.tasks.base import Task
from petra.tasks.value_losses import lai_mae, lai_mse

G = torch.Generator().manual_seed(0)
LOGITS = torch.randn(20, 4, generator=G)
LABELS = torch.randint(0, 4, (20,), generator=G)
OUTPUTS = {"output": LOGITS}


def classification() -> Task:
    pair = (torch.zeros(20, 3), LABELS)
    return petra.classification(pair, pair, pair)


def regression() -> Task:
    pair = (torch.zeros(20, 3), torch.randn(20, generator=G))
    return petra.regression(pair, pair, pair, unit=1.0)


def log_softmax(row: Tensor) -> list[float]:
    total = math.log(sum(math.exp(float(v)) for v in row))
    return [float(v) - total for v in row]


def test_cross_entropy_with_smoothing() -> None:
    eps, expected = 0.1, 0.0
    for row, label in zip(LOGITS, LABELS, strict=True):
        log_p = log_softmax(row)
        expected -= (1 - eps) * log_p[int(label)] + eps * sum(log_p) / 4
    got = classification().loss().setting(label_smoothing=eps)(OUTPUTS, LABELS)
    assert float(got) == pytest.approx(expected / 20, rel=1e-5)


def test_focal() -> None:
    terms = []
    for row, label in zip(LOGITS, LABELS, strict=True):
        log_p = log_softmax(row)[int(label)]
        terms.append(-((1 - math.exp(log_p)) ** 2) * log_p)
    assert float(classification().loss("focal")(OUTPUTS, LABELS)) == pytest.approx(
        sum(terms) / 20, rel=1e-5
    )


def test_distillation_is_t_squared_kl_and_zero_for_equals() -> None:
    student, t = LOGITS.flip(0), 3.0
    expected = 0.0
    for s, te in zip(student / t, LOGITS / t, strict=True):
        log_s, log_t = log_softmax(s), log_softmax(te)
        expected += sum(math.exp(b) * (b - a) for a, b in zip(log_s, log_t, strict=True))
    distance = classification().distance().setting(temperature=t)
    assert float(distance({"output": student}, OUTPUTS)) == pytest.approx(
        t * t * expected / 20, rel=1e-4
    )
    assert float(distance(OUTPUTS, OUTPUTS)) == pytest.approx(0.0, abs=1e-6)


def test_accuracy_and_its_standard_error() -> None:
    hits = sum(int(row.argmax()) == int(label) for row, label in zip(LOGITS, LABELS, strict=True))
    score = classification().score(LOGITS, LABELS)
    p = hits / 20
    assert score.mean == pytest.approx(p)
    assert score.stderr == pytest.approx(math.sqrt(p * (1 - p) / 20))


def test_rmse_ignores_a_trailing_axis_and_its_error_shrinks() -> None:
    prediction, target = torch.tensor([[1.0], [2.0], [5.0]]), torch.tensor([1.0, 4.0, 4.0])
    assert regression().score(prediction, target).mean == pytest.approx(math.sqrt(5 / 3))
    few = regression().score(torch.randn(100, generator=G), torch.zeros(100))
    many = regression().score(torch.randn(10_000, generator=G), torch.zeros(10_000))
    assert many.stderr < few.stderr / 5
    assert few.mean == pytest.approx(1.0, abs=4 * few.stderr)


@pytest.mark.parametrize(
    ("name", "expected"), [("mse", 2.5), ("mae", 1.5), ("huber", (0.5 + 1.5) / 2)]
)
def test_regression_losses(name: str, expected: float) -> None:
    prediction, target = torch.tensor([[1.0], [4.0]]), torch.tensor([0.0, 2.0])
    assert float(regression().loss(name)({"output": prediction}, target)) == pytest.approx(expected)


def test_unknown_loss_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="did you mean 'focal'"):
        classification().loss("focall")


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (LOGITS, LABELS + 1, "labels run from"),
        (LOGITS, LABELS - 1, "labels run from -1"),
        (LOGITS, LABELS.float(), "targets are torch.float32"),
        (LOGITS[:, :1].squeeze(1), LABELS, "returns shape"),
    ],
)
def test_classification_checks(logits: Tensor, labels: Tensor, words: str) -> None:
    with pytest.raises(DataError, match=words):
        classification().check(logits, labels, where="val split")


@pytest.mark.parametrize(
    ("prediction", "target", "words"),
    [
        (torch.zeros(4, 2), torch.zeros(4), "returns shape"),
        (torch.zeros(4), torch.zeros(4, dtype=torch.int64), "targets are torch.int64"),
        (torch.zeros(4), torch.tensor([0.0, float("nan"), 0, 0]), "NaN"),
    ],
)
def test_regression_checks(prediction: Tensor, target: Tensor, words: str) -> None:
    with pytest.raises(DataError, match=words):
        regression().check(prediction, target, where="val split")


def lai_by_loops(
    prediction: list[float], target: list[float], lam: float, *, squared: bool
) -> float:
    """The formulas of Lai 2024 item by item."""
    n, total = len(target), 0.0
    for p, t in zip(prediction, target, strict=True):
        r = p - t
        k = 2 * r / n if squared else math.copysign(1.0, r) / n if r else 0.0
        sine, cosine = (k * k, 1.0) if squared else (abs(k), 1.0)
        scale = 1 + k * k if squared else math.sqrt(1 + k * k)
        weight = (
            max(sine / (lam * scale), cosine / scale)
            if lam < 1
            else max(sine / scale, lam * cosine / scale)
        )
        total += weight * (r * r if squared else abs(r))
    return total / n


@pytest.mark.parametrize("lam", [0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("squared", [True, False])
def test_lai_losses_by_loops(lam: float, squared: bool) -> None:
    """Residuals on both sides of the slope where the other branch of the maximum takes over."""
    target = [0.0, 1.0, -2.0, 3.0, 0.5]
    prediction = [0.0, 1.2, 8.0, -30.0, 0.1]
    residual = torch.tensor(prediction) - torch.tensor(target)
    got = (lai_mse if squared else lai_mae)(residual, lam)
    assert float(got) == pytest.approx(
        lai_by_loops(prediction, target, lam, squared=squared), rel=1e-5
    )


def test_lai_losses_are_losses_of_the_task() -> None:
    prediction, target = torch.randn(7, 1, generator=G), torch.randn(7, generator=G)
    for name, squared in (("lai_mse", True), ("lai_mae", False)):
        expected = lai_by_loops(
            prediction.flatten().tolist(), target.tolist(), 0.5, squared=squared
        )
        got = regression().loss(name)({"output": prediction}, target)
        assert float(got) == pytest.approx(expected, rel=1e-5)


def test_lai_slopes_are_those_of_the_mean_over_all_values() -> None:
    """Ten forecasts of six steps are sixty residuals."""
    residual = 20 * torch.randn(10, 6, generator=G)
    for loss in (lai_mse, lai_mae):
        assert float(loss(residual, 0.3)) == pytest.approx(float(loss(residual.flatten(), 0.3)))


def test_a_small_lambda_weights_steep_residuals_more() -> None:
    """Two items, one far off: its share of the loss grows as lambda falls below one."""
    near, far = torch.tensor([0.1, 0.0]), torch.tensor([0.1, 4.0])
    ratios = [float(lai_mse(far, lam) / lai_mse(near, lam)) for lam in (1.0, 0.5, 0.1)]
    assert ratios == sorted(ratios)
    assert ratios[2] > 5 * ratios[0]


def test_parameters_that_cannot_act_on_the_data_are_ignored() -> None:
    ids = torch.zeros(20, 3, dtype=torch.int64)
    words = petra.classification((ids, LABELS), (ids, LABELS), (ids, LABELS))
    assert Tune.ignored(classification()) == frozenset()
    assert Tune.ignored(words) == {"mixup"}
    for stage, name in ((Tune, "label_smoothing"), (Distill, "temperature")):
        pinned = stage.card_for(regression()).parameter(name)
        free = stage.card_for(classification()).parameter(name)
        assert pinned is not None
        assert free is not None
        assert pinned.limits == Choice((pinned.default,))
        assert isinstance(free.domain, Real)
