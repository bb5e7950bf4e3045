"""Losses, distance and metrics of forecasts against loops; errors that know how windows overlap."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from forecast_data import CHANNELS, CONTEXT, HORIZON, LEVELS, SEASON, G, forecasts, parts, waves
from torch import Tensor

import petra
from petra.tasks.forecast_losses import (
    Pinball,
    QuantileDistance,
    QuantileHuber,
    WeightedQuantile,
    pinball,
    shares,
)
from petra.tasks.forecast_scores import InTime, MeanAbsoluteScaledError, MeanPinball, blocks, reach
from petra.tasks.inputs import Outputs
from petra.tasks.naive_error import naive_error
from petra.tasks.scores import MeanAbsoluteError, RootMeanSquaredError
from petra.testing.measures_suites import Batch, LossSuite, ScorerSuite

# -- losses and distance -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "one", [Pinball(LEVELS), QuantileHuber(LEVELS), WeightedQuantile(LEVELS)], ids=lambda x: x.name
)
class TestLosses(LossSuite):
    @pytest.fixture(autouse=True)
    def chosen(self, one: Pinball) -> None:
        self.loss = one  # type: ignore[misc]

    @pytest.fixture
    def batch(self) -> Batch:
        return forecasts(16)


def test_quantile_losses_by_loops() -> None:
    outputs, target = forecasts(4)
    kappa = 0.1
    sharp = smooth = size = 0.0
    for place in np.ndindex(*target.shape):
        size += abs(float(target[place]))
        for k, q in enumerate(LEVELS):
            r = float(target[place] - outputs["output"][(*place, k)])
            sharp += q * r if r >= 0 else (q - 1) * r
            h = r * r / 2 if abs(r) <= kappa else kappa * (abs(r) - kappa / 2)
            smooth += abs(q - (r < 0)) * h / kappa
    count = target.numel() * len(LEVELS)
    assert float(Pinball(LEVELS)(outputs, target)) == pytest.approx(sharp / count, rel=1e-5)
    assert float(QuantileHuber(LEVELS)(outputs, target)) == pytest.approx(smooth / count, rel=1e-5)
    weighted = 2 * sharp / size / len(LEVELS)
    assert float(WeightedQuantile(LEVELS)(outputs, target)) == pytest.approx(weighted, rel=1e-5)


def test_the_pinball_loss_is_least_at_the_quantile() -> None:
    sample = torch.randn(20_000, generator=G)
    tries = torch.linspace(-2, 2, 401)
    for q in LEVELS:
        costs = [float(pinball(x.expand(20_000, 1), sample, (q,)).mean()) for x in tries]
        best = float(tries[int(np.argmin(costs))])
        assert best == pytest.approx(float(sample.quantile(q)), abs=0.03)


def test_the_distance_of_quantile_forecasts_is_that_of_their_distributions() -> None:
    """Of normal distributions it is (m - m')^2 + (s - s')^2 exactly; so many quantiles are near."""
    levels = tuple((i + 0.5) / 500 for i in range(500))
    z = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(levels))
    ours, theirs = (m + s * z.expand(3, 2, 4, -1) for m, s in ((1.0, 2.0), (0.5, 1.2)))
    found = float(QuantileDistance(levels)({"y": ours}, {"y": theirs}))
    assert found == pytest.approx(0.5**2 + 0.8**2, rel=0.01)
    assert sum(shares(LEVELS)) == pytest.approx(1.0)
    assert shares(LEVELS) == pytest.approx((0.3, 0.4, 0.3))


# -- metrics -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "one",
    [
        InTime(MeanAbsoluteScaledError((0.5, 2.0)), 1),
        InTime(MeanPinball(LEVELS)),
        InTime(RootMeanSquaredError(), 1),
        InTime(MeanAbsoluteError(), 1),
    ],
    ids=lambda x: x.metric.name,
)
class TestScorers(ScorerSuite):
    @pytest.fixture(autouse=True)
    def chosen(self, one: InTime) -> None:
        self.scorer = one  # type: ignore[misc]

    @pytest.fixture
    def batch(self) -> Batch:
        return forecasts(800)

    @pytest.fixture
    def worse(self, batch: Batch) -> Outputs:
        return {"output": batch[0]["output"] + 2.0}


def test_mase_by_loops() -> None:
    """In units of the training series' own seasonal change, channel by channel."""
    series, given = waves(), parts()
    train = series[:420].double()
    scale = [
        float(np.mean([abs(train[t, c] - train[t - SEASON, c]) for t in range(SEASON, 420)]))
        for c in range(CHANNELS)
    ]
    task = petra.forecasting(*given, season=SEASON, scale=scale)
    _, target = given[2]
    guess = target + torch.randn(target.shape, generator=G)
    total = 0.0
    for c in range(CHANNELS):
        total += float((guess[:, c] - target[:, c]).abs().double().mean()) / scale[c]
    assert task.score(guess, target).mean == pytest.approx(total / CHANNELS, rel=1e-5)
    # Found from windows, steps in the middle of the series count as often as they are in windows.
    found = petra.forecasting(*given, season=SEASON)
    assert found.score(guess, target).mean == pytest.approx(total / CHANNELS, rel=0.03)


@pytest.mark.parametrize("season", [2, SEASON])
def test_the_naive_error_by_loops(season: int) -> None:
    """From targets alone where a season ends in them, else with what goes before."""
    (past, target), _, _ = parts()
    task = petra.forecasting(*parts(), season=season, metric="mae")
    for c in range(CHANNELS):
        changes = []
        for i in range(len(target)):
            row = torch.cat([past[i, c], target[i, c]]).double()
            first = CONTEXT if season >= HORIZON else CONTEXT + season
            changes += [float(abs(row[t] - row[t - season])) for t in range(first, len(row))]
        assert naive_error(task.train, season)[c] == pytest.approx(np.mean(changes), rel=1e-6)


def test_repeating_the_last_season_has_a_mase_of_1_in_training() -> None:
    past, target = parts()[0]
    task = petra.forecasting(*parts(), season=SEASON)
    repeated = past[..., -SEASON:][..., :HORIZON]
    assert task.score(repeated, target).mean == pytest.approx(1.0, rel=1e-9)


def test_metrics_of_quantile_forecasts_are_of_the_median() -> None:
    pytest.importorskip("torchmetrics")
    outputs, target = forecasts()
    pair = (torch.zeros(300, CHANNELS, CONTEXT), target)
    names = ["rmse", "mae", "mase", "smape", "r2"]
    task = petra.forecasting(pair, pair, pair, quantiles=LEVELS, metrics=names)
    plain = petra.forecasting(pair, pair, pair, metrics=[n for n in names if n != "mase"])
    found = task.scores(outputs, target)
    median = {"output": outputs["output"][..., 1]}
    other = plain.scores(median, target)
    assert found["mase"].mean == pytest.approx(other["quality"].mean)
    for name in ("rmse", "mae", "smape", "r2"):
        assert found[name] == other[name]
    half = petra.forecasting(pair, pair, pair, metric="pinball").scores(median, target)
    assert half["quality"].mean == pytest.approx(other["mae"].mean / 2)


# -- errors ------------------------------------------------------------------------------------


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
