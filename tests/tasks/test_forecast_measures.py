"""Losses, distance and metrics of forecasts against loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from forecast_data import CHANNELS, CONTEXT, HORIZON, LEVELS, SEASON, G, forecasts, parts, waves

import petra
from petra.tasks.forecast_losses import (
    Pinball,
    QuantileDistance,
    QuantileHuber,
    WeightedQuantile,
    pinball,
    shares,
)
from petra.tasks.forecast_scores import InTime, MeanAbsoluteScaledError, MeanPinball
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


def test_a_batch_of_zeros_is_weighted_by_its_number() -> None:
    """Over nearly nothing, one batch without events would wreck the weights."""
    outputs, _ = forecasts(4)
    target = torch.zeros(4, CHANNELS, HORIZON)
    given = {"output": outputs["output"].clone().requires_grad_()}
    found = WeightedQuantile(LEVELS)(given, target)
    sharp = float(Pinball(LEVELS)(outputs, target))
    assert float(found.detach()) == pytest.approx(2 * sharp, rel=1e-5)
    (gradient,) = torch.autograd.grad(found, given["output"])
    assert float(gradient.abs().max()) < 1.0


@pytest.mark.parametrize("levels", [(), LEVELS], ids=["point", "quantiles"])
def test_losses_and_distance_mean_the_same_in_any_unit(levels: tuple[float, ...]) -> None:
    """Watts and kilowatts: a series in another unit has the same losses, found from it or given."""
    outputs, target = forecasts(16)
    if not levels:
        outputs = {"output": outputs["output"][..., 1]}
    other = {"output": outputs["output"].roll(1, 0)}
    pair = (torch.zeros(16, CHANNELS, CONTEXT), target)
    many = (pair[0], 1024 * target)
    one = petra.forecasting(*[pair] * 3, quantiles=levels)
    large = petra.forecasting(*[many] * 3, quantiles=levels)
    assert large.unit == pytest.approx(1024 * one.unit)
    assert petra.forecasting(*[pair] * 3, quantiles=levels, unit=7.0).unit == 7.0
    scaled, moved = ({k: 1024 * t for k, t in o.items()} for o in (outputs, other))
    for loss in one.losses():
        if not loss.name.startswith("lai"):  # whose slopes are in the targets' own unit
            found = float(large.loss(loss.name)(scaled, 1024 * target))
            assert found == pytest.approx(float(loss(outputs, target)), rel=1e-4)
    apart = float(large.distance()(scaled, moved))
    assert apart == pytest.approx(float(one.distance()(outputs, other)), rel=1e-4)


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
