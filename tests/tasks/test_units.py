"""Which tasks are judged by their error, and by which; the unit that losses of values are in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from measured_data import LOGITS, SPLITS, VALUES, X, Y
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import petra
from petra.config import parse_config
from petra.core.errors import ConfigError
from petra.problem import check_directions
from petra.tasks.value_losses import SquaredError

SPREAD = float(X[:, 0].double().std(correction=0))


def negative(prediction: Tensor, target: Tensor) -> float:
    return -float((prediction.squeeze() - target).square().mean())


def test_who_is_judged_by_an_error() -> None:
    score = petra.scorer(negative, maximize=True)
    assert petra.regression(*VALUES).judged_by_error
    assert petra.regression(*VALUES, metric=score).judged_by_error
    assert not petra.classification(*SPLITS).judged_by_error
    own = {"loss": functional.l1_loss, "score": negative}
    assert petra.task(*VALUES, **own, maximize=False).judged_by_error  # type: ignore[arg-type]
    assert not petra.task(*VALUES, **own, maximize=True).judged_by_error  # type: ignore[arg-type]
    windows = (torch.randn(9, 1, 5), torch.randn(9, 1, 5))
    assert petra.forecasting(windows, windows, windows, metric=score).judged_by_error


def test_a_classification_is_not_whatever_it_is_judged_by() -> None:
    """Its outputs are scores of classes: defaults that keep values precise are not for them."""
    surprise = petra.scorer(
        lambda p, t: float(functional.cross_entropy(p, t)), maximize=False, name="surprise"
    )
    task = petra.classification(*SPLITS, metric=surprise)
    assert not task.maximize
    assert not task.judged_by_error


def test_an_error_is_less_where_the_quality_is_better() -> None:
    near, far = ({"y": X[:, 0] + off} for off in (0.1, 0.5))
    for task in (petra.regression(*VALUES), petra.regression(*VALUES, metric=_determination())):
        assert task.error_of(near, X[:, 0]) < task.error_of(far, X[:, 0])
    assert petra.regression(*VALUES).error_of(near, X[:, 0]) == pytest.approx(0.1, rel=1e-4)
    wrong = float((LOGITS.argmax(1) != Y).double().mean())
    assert petra.classification(*SPLITS).error_of({"y": LOGITS}, Y) == pytest.approx(wrong)
    left = float(0.1**2 / X[:, 0].double().var(correction=0))
    task = petra.regression(*VALUES, metric=_determination())
    assert task.error_of(near, X[:, 0]) == pytest.approx(left, rel=1e-3)


def _determination() -> petra.Scorer:
    def r2(prediction: Tensor, target: Tensor) -> float:
        off = (prediction.squeeze() - target).square().mean()
        return 1 - float(off / target.var(correction=0))

    return petra.scorer(r2, maximize=True)


@pytest.mark.parametrize(
    ("name", "power"), [("mse", 2), ("mae", 1), ("lai_mse", 2), ("lai_mae", 1)]
)
def test_losses_are_those_in_the_targets_unit_over_a_power_of_it(name: str, power: int) -> None:
    prediction, target = torch.randn(9, 1), torch.randn(9)
    plain, scaled = (petra.regression(*VALUES, unit=u) for u in (1.0, 7.0))
    one, other = (float(t.loss(name)({"y": prediction}, target)) for t in (plain, scaled))
    assert other == pytest.approx(one / 7**power, rel=1e-5)


def test_a_huber_loss_has_its_bend_in_that_unit() -> None:
    prediction, target = 30 * torch.randn(50, 1), 30 * torch.randn(50)
    found = petra.regression(*VALUES, unit=30.0).loss("huber")({"y": prediction}, target)
    expected = functional.huber_loss(prediction.squeeze(1) / 30, target / 30, delta=1.0)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_the_unit_is_the_spread_of_the_training_targets_in_memory() -> None:
    task = petra.regression(*VALUES)
    assert task.unit == pytest.approx(SPREAD)
    outputs, other = {"y": X[:, 1]}, {"y": X[:, 2]}
    squares = functional.mse_loss(X[:, 1], X[:, 2])
    assert float(task.distance()(outputs, other)) == pytest.approx(float(squares) / SPREAD**2)
    assert petra.regression(*VALUES, loss=SquaredError()).loss() == SquaredError(unit=task.unit)
    # Of several outputs, what a model is off by that predicts the mean of each, wherever these are.
    several = torch.stack([X[:, 0], 1000 + 100 * X[:, 1]], 1)
    both = petra.regression(*[(X, several)] * 3)
    means = several.mean(0).expand(60, 2)
    assert float(both.loss("mse")({"y": means}, several)) == pytest.approx(1.0, rel=1e-4)
    integers = np.arange(60)
    assert petra.regression(*[(X, integers)] * 3).unit == pytest.approx(integers.std())


def test_where_there_is_no_spread_to_see_it_is_one() -> None:
    loader = DataLoader(TensorDataset(X, X[:, 0]), batch_size=10)
    assert petra.regression(loader, loader, loader).unit == 1.0
    for value in (3.0, 0.1):  # a mean of tenths is none
        assert petra.regression(*[(X, torch.full((60,), value))] * 3).unit == 1.0
    half = torch.stack([X[:, 0], torch.full((60,), 0.1)], 1)
    assert petra.regression(*[(X, half)] * 3).unit == pytest.approx(SPREAD / 2**0.5)
    holes = torch.where(X[:, 0] > 0, X[:, 0], torch.nan)
    assert 0 < petra.regression((X, holes), *VALUES[1:]).unit < np.inf


def test_a_loss_and_metrics_of_ones_own_see_targets_as_they_are() -> None:
    task = petra.regression(*VALUES, loss=functional.l1_loss, unit=5.0)
    assert float(task.loss()({"y": X[:, 1]}, X[:, 0])) == pytest.approx(
        float(functional.l1_loss(X[:, 1], X[:, 0]))
    )
    plain = petra.regression(*VALUES)
    assert task.score(X[:, 1], X[:, 0]) == plain.score(X[:, 1], X[:, 0])


@pytest.mark.parametrize("unit", [0, -1.0, float("inf"), float("nan"), True, "1"])
def test_what_is_no_unit_is_refused(unit: Any) -> None:
    with pytest.raises(ConfigError, match="unit: got"):
        petra.regression(*VALUES, unit=unit)


def test_a_constraint_that_asks_for_a_large_error_is_refused() -> None:
    def check(text: str, task: petra.Task) -> None:
        check_directions(parse_config({"constraints": [text]}), task)

    task = petra.regression(*VALUES, metrics=["mae"])
    for text, named in (("quality >= baseline - 0.01", "rmse"), ("mae >= 0.1", "mae")):
        with pytest.raises(ConfigError, match=f"asks for much of {named}") as caught:
            check(text, task)
        assert "<= 1.02 * baseline" in caught.value.hint
    check("quality <= 1.02 * baseline", task)
    check("size >= 1 kB", task)
    check("quality >= baseline - 0.01", petra.classification(*SPLITS))
    check("quality <= 0.9", petra.classification(*SPLITS))
