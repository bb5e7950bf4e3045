"""Standard errors of forecasts, which know how windows overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from forecast_data import LEVELS
from torch import Tensor

import petra
from petra.core.metric import Metric, task_metric
from petra.tasks.forecast_scores import InTime, blocks, reach
from petra.tasks.inputs import Outputs
from petra.tasks.scorers import ItemScorer
from petra.tasks.scores import MeanAbsoluteError, RootMeanSquaredError
from petra.testing.measures_suites import Batch


def overlapping(n: int, horizon: int, g: torch.Generator) -> Batch:
    """n windows in a row of a series of independent errors: neighbours share all steps but one."""
    errors = torch.randn(n + horizon - 1, generator=g).unfold(0, horizon, 1)
    return {"output": errors.unsqueeze(1)}, torch.zeros(n, 1, horizon)


@pytest.mark.parametrize("scorer", [MeanAbsoluteError(), RootMeanSquaredError()])
def test_the_error_knows_that_windows_overlap(
    scorer: MeanAbsoluteError | RootMeanSquaredError,
) -> None:
    g, n, horizon = torch.Generator().manual_seed(1), 480, 12
    ids = torch.arange(n)
    values, stated, naive = [], [], []
    for _ in range(200):
        outputs, target = overlapping(n, horizon, g)
        found = InTime(scorer).measure(outputs, target, ids)
        values.append(found.mean)
        stated.append(found.stderr)
        naive.append(scorer.measure(outputs, target, ids).stderr)
    true = float(np.std(values))
    assert float(np.mean(stated)) == pytest.approx(true, rel=0.2)
    assert float(np.mean(naive)) < 0.45 * true


def test_so_does_the_error_of_a_difference() -> None:
    g, n, horizon = torch.Generator().manual_seed(2), 480, 12
    ids = torch.arange(n)
    for scorer in (MeanAbsoluteError(), RootMeanSquaredError()):
        values, stated = [], []
        for _ in range(60):
            (ours, target), (theirs, _) = (overlapping(n, horizon, g) for _ in range(2))
            found = InTime(scorer).difference(ours, theirs, target, ids)
            values.append(found.mean)
            stated.append(found.stderr)
        assert float(np.mean(stated)) == pytest.approx(float(np.std(values)), rel=0.3)


def test_functions_are_judged_in_blocks_too() -> None:
    def worst(prediction: Tensor, targets: Tensor) -> float:
        return float((prediction - targets).abs().amax(2).mean())

    def worst_of_each(prediction: Tensor, targets: Tensor) -> Tensor:
        return (prediction - targets).abs().amax(2).mean(1)

    outputs, target = overlapping(480, 12, torch.Generator().manual_seed(3))
    pair = (torch.zeros(480, 1, 4), target)
    made = [petra.scorer(f, maximize=False) for f in (worst, worst_of_each)]
    task = petra.forecasting(pair, pair, pair, metric="mae", metrics=made)
    found = task.scores(outputs, target)
    alone = made[1].measure(outputs, target, torch.arange(480))
    assert found["worst"].mean == pytest.approx(found["worst_of_each"].mean)
    assert found["worst"].stderr == pytest.approx(found["worst_of_each"].stderr, rel=1e-3)
    assert found["worst_of_each"].stderr > 2 * alone.stderr


def test_functions_are_given_ids_as_they_are() -> None:
    """While errors are found, too, where windows of one block belong together."""
    outputs, target = overlapping(480, 12, torch.Generator().manual_seed(3))
    pair, seen = (torch.zeros(480, 1, 4), target), set()

    def weighted(outputs: Outputs, targets: Tensor, ids: Tensor) -> float:
        seen.update(ids.tolist())
        weights = 1.0 + (ids % 7).double()
        return float((weights * outputs["output"].abs().mean((1, 2))).sum() / weights.sum())

    made = petra.scorer(weighted, maximize=False)
    scorer = petra.forecasting(pair, pair, pair, metric=made).scorers()[0]
    ids = torch.arange(1000, 1480)
    found = scorer.measure(outputs, target, ids)
    assert seen == set(range(1000, 1480))
    assert found.mean == scorer.value(outputs, target, ids)
    assert found.stderr > 2 * made.measure(outputs, target, ids).stderr
    other = {"output": outputs["output"].roll(240, 0)}
    change = scorer.difference(outputs, other, target, ids)
    assert change.stderr > 2 * made.difference(outputs, other, target, ids).stderr


@dataclass(frozen=True)
class Worst(ItemScorer):
    """A person's own."""

    @property
    def metric(self) -> Metric:
        return task_metric("worst", maximize=False)

    def items(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> Tensor:
        return (outputs["output"] - targets).abs().flatten(1).amax(1)


def test_scorers_that_are_given_are_judged_in_blocks_like_names() -> None:
    outputs, target = overlapping(480, 12, torch.Generator().manual_seed(3))
    quantiles = {"output": outputs["output"][..., None] + torch.tensor([-1.0, 0.0, 1.0])}
    pair = (torch.zeros(480, 1, 4), target)
    task = petra.forecasting(pair, pair, pair, metric="mae", metrics=[Worst()])
    found = task.scores(outputs, target)
    assert found["worst"].stderr > 2 * Worst().measure(outputs, target, torch.arange(480)).stderr
    # One of petra's own is of the median, whether it is named or given.
    for rmse in ("rmse", RootMeanSquaredError()):
        task = petra.forecasting(pair, pair, pair, metric=rmse, quantiles=LEVELS)
        plain = petra.forecasting(pair, pair, pair, metric="rmse")
        assert task.score(quantiles, target) == plain.score(outputs, target)


@pytest.mark.parametrize(("stride", "shared"), [(1, 12), (4, 3), (5, 3), (12, 12), (20, 12)])
def test_how_far_windows_overlap_is_seen_in_them(stride: int, shared: int) -> None:
    """In any order, and where some are left out; where nothing is seen, as at every step."""
    g = torch.Generator().manual_seed(4)
    series = torch.randn(2, 2000, generator=g)
    targets = series.unfold(1, 12, stride).movedim(1, 0)
    ids = torch.arange(len(targets))
    kept = torch.randperm(len(targets), generator=g)[: len(targets) // 2]
    assert reach(targets, ids) == shared
    assert reach(targets[kept], ids[kept]) == shared
    assert reach(targets[:1], ids[:1]) == 12


def test_blocks_are_in_order_of_time_and_of_two_reaches() -> None:
    for n, horizon, count in ((480, 12, 20), (10_000, 12, 30), (60, 12, 5), (3, 12, 3)):
        found = blocks(torch.arange(n), horizon)
        assert torch.equal(found, found.sort().values)
        assert found.unique().tolist() == list(range(count))
    some = torch.tensor([400, 3, 401, 5, 100])
    assert blocks(some, 10).argsort().tolist()[0] in (1, 3), "whatever the items' order"
    assert len(blocks(torch.tensor([7]), 12)) == 1
