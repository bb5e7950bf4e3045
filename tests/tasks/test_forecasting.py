"""Forecasting as a task: the suite of tasks, what is refused, a study of points and quantiles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from forecast_data import LEVELS, Forecaster, G, made
from torch import Tensor, nn

import petra
from petra.core.errors import ConfigError, DataError
from petra.core.trial import TrialStatus
from petra.intake import examine
from petra.tasks.base import Task
from petra.tasks.forecasting import Forecasting
from petra.testing.measures_suites import TaskSuite
from petra.training.loop import TrainConfig, fit


@pytest.fixture(scope="module", params=[(), LEVELS], ids=["point", "quantiles"])
def problem(request: pytest.FixtureRequest) -> tuple[nn.Module, Task]:
    torch.manual_seed(0)
    task, model = made(request.param), Forecaster(len(request.param))
    fit(model, task, TrainConfig(epochs=4, lr=0.01, optimizer="adamw", batch_size=32), seed=0)
    return model, task


class TestForecasting(TaskSuite):
    @pytest.fixture
    def problem(self, problem: tuple[nn.Module, Task]) -> tuple[nn.Module, Task]:
        return problem


# -- refused -----------------------------------------------------------------------------------


PAIR = (torch.randn(40, 2, 8, generator=G), torch.randn(40, 2, 4, generator=G))
FLAT = (PAIR[0], torch.ones(40, 2, 4))


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"quantiles": (0.5, 0.1)}, ConfigError, "quantiles: got"),
        ({"quantiles": (0.5, 1.0)}, ConfigError, "quantiles: got"),
        ({"quantiles": 0.5}, ConfigError, "quantiles: got"),
        ({"quantiles": (0.1, 0.9), "metric": "mase"}, ConfigError, "mase is of the median"),
        ({"quantiles": (0.1, 0.9), "metrics": ["rmse"]}, ConfigError, "rmse is of the median"),
        ({"season": 0}, ConfigError, "season: got 0"),
        ({"season": 9}, DataError, "a season of 9 steps is longer than targets of 4"),
        ({"scale": [1.0, 2.0, 3.0]}, ConfigError, "each of the 2 channels"),
        ({"scale": -1.0}, ConfigError, "scale: got -1.0"),
        ({"metric": "mase", "metrics": ["mase"]}, ConfigError, "name of its own"),
    ],
)
def test_what_makes_no_forecast_is_refused(
    given: Mapping[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        petra.forecasting(PAIR, PAIR, PAIR, **given)  # type: ignore[arg-type]
    assert words in f"{caught.value} {getattr(caught.value, 'hint', '')}"


def test_a_series_that_does_not_change_has_no_mase() -> None:
    with pytest.raises(DataError, match="channel 0 does not change in a season of 1"):
        petra.forecasting(FLAT, PAIR, PAIR)
    assert petra.forecasting(FLAT, PAIR, PAIR, metric="mae").metric == "mae"
    assert petra.forecasting(FLAT, PAIR, PAIR, scale=2.0).metric == "MASE"


@pytest.mark.parametrize(
    ("levels", "shape", "words"),
    [
        ((), (4, 2), "put its axes in that order"),
        ((), (2, 4, 3), "say which quantiles"),
        (LEVELS, (2, 4), "its last axis has the 3 quantiles"),
        ((), (2, 5), "as many channels and steps"),
    ],
)
def test_predictions_of_another_shape_are_named(
    levels: tuple[float, ...], shape: tuple[int, ...], words: str
) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            flat = x.mean((1, 2)).reshape(-1, *[1] * len(shape))
            return flat.expand(-1, *shape)

    task = petra.forecasting(PAIR, PAIR, PAIR, quantiles=levels)
    with pytest.raises(DataError) as caught:
        examine(Odd(), task)
    assert words in str(caught.value.hint)


def test_a_single_series_needs_an_axis_of_channels() -> None:
    pair = (PAIR[0][:, 0], PAIR[1][:, 0])
    with pytest.raises(DataError) as caught:
        petra.forecasting(pair, pair, pair)
    assert "targets.unsqueeze(1)" in str(caught.value.hint)


# -- a study -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_study_of_forecasts(problem: tuple[nn.Module, Task], tmp_path: Path) -> None:
    """Points and quantiles, trained, distilled, quantized, measured and confirmed."""
    model, task = problem
    quantiles = isinstance(task, Forecasting) and bool(task.quantiles)
    tuned = {"loss": "quantile_huber", "kappa": 0.2} if quantiles else {"loss": "mae"}
    rounded = {"exclude": "last"}  # by default of its two layers none would be left
    study = petra.compress(
        model,
        task,
        objectives=("quality", "rmse", "size"),
        constraints=("mae <= 2 * baseline",),
        space={
            "initial": [
                [{"stage": "tune", "params": {**tuned, "epochs": 1}}],
                [
                    {"stage": "distill", "params": {"epochs": 1}},
                    {"stage": "quantize.static", "params": rounded},
                ],
            ]
        },
        budget={"trials": 2},
        workdir=tmp_path / "study",
    )
    assert [t.failure for t in study.trials if t.status is not TrialStatus.COMPLETE] == []
    base = study.trials[0]
    scaled = base.metrics["mase" if quantiles else "quality"]
    assert scaled.mean < 1.0, "better than repeating the last season"
    assert base.metrics["quality"].unit == ("pinball loss" if quantiles else "MASE")
    for trial in study.front.members:
        assert {"quality", "rmse", "mae"} <= trial.test.keys()
        assert all(trial.test[name].stderr > 0 for name in ("quality", "rmse", "mae"))
