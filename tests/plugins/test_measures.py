"""Metrics, losses and a task that petra does not know, each against its suite, and all of them in a
study with real training, files and measurements.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from forecasting import (
    MASE,
    QUANTILES,
    Forecaster,
    PinballScore,
    SmoothPinball,
    forecasting,
    pinball,
    waves,
)
from polyloss import PolyLoss
from torch import Tensor, nn
from zipped import ZIPPED, packed

import petra
from petra.core.metric import METRICS
from petra.core.trial import TrialStatus
from petra.report.record import StudyRecord
from petra.report.tables import front_view, to_text
from petra.tasks.base import Task
from petra.tasks.inputs import Outputs
from petra.testing.measures_suites import Batch, LossSuite, ScorerSuite, TaskSuite
from petra.testing.metric_suite import MetricSuite
from petra.training.loop import TrainConfig, fit, predict_all

G = torch.Generator().manual_seed(0)


class TestZipped(MetricSuite):
    metric = ZIPPED


class TestPolyLoss(LossSuite):
    loss = PolyLoss()

    @pytest.fixture
    def batch(self) -> Batch:
        return {"output": torch.randn(16, 4, generator=G)}, torch.randint(0, 4, (16,), generator=G)


def forecasts() -> Batch:
    target = torch.randn(64, 5, generator=G)
    noise = 0.3 * torch.randn(64, 5, 3, generator=G)
    return {"output": target[..., None] + noise}, target


class TestSmoothPinball(LossSuite):
    loss = SmoothPinball()

    @pytest.fixture
    def batch(self) -> Batch:
        return forecasts()


class _Forecasts(ScorerSuite):
    @pytest.fixture
    def batch(self) -> Batch:
        return forecasts()

    @pytest.fixture
    def worse(self, batch: Batch) -> Outputs:
        return {"output": batch[0]["output"] + 2.0}


class TestMASE(_Forecasts):
    scorer = MASE(0.5)


class TestPinballScore(_Forecasts):
    scorer = PinballScore()


@pytest.fixture(scope="module")
def problem() -> tuple[nn.Module, Task]:
    """A small forecaster, trained for a few seconds."""
    torch.manual_seed(0)
    model = Forecaster(24, 6)
    task = forecasting(waves(), history=24, steps=6, season=12)
    fit(model, task, TrainConfig(epochs=6, lr=0.01, optimizer="adamw", batch_size=32), seed=0)
    return model, task


class TestForecasting(TaskSuite):
    @pytest.fixture
    def problem(self, problem: tuple[nn.Module, Task]) -> tuple[nn.Module, Task]:
        return problem


def test_pinball_by_loops() -> None:
    outputs, target = forecasts()
    prediction: Tensor = outputs["output"]
    total = 0.0
    for i in range(len(target)):
        for s in range(target.shape[1]):
            for k, q in enumerate(QUANTILES):
                r = float(target[i, s] - prediction[i, s, k])
                total += q * r if r >= 0 else (q - 1) * r
    got = float(pinball(prediction, target, QUANTILES).sum())
    assert got == pytest.approx(total, rel=1e-4)


@pytest.mark.slow
def test_a_study_of_forecasts(problem: tuple[nn.Module, Task], tmp_path: Path) -> None:
    """MASE as the quality, pinball loss and packed bytes as objectives, a loss with a parameter of
    its own in the pipeline; everything shipped and shown.
    """
    model, task = problem
    METRICS.register("zipped_bytes", ZIPPED)
    tuned = {"stage": "tune", "params": {"loss": "smooth_pinball", "width": 0.2, "epochs": 1}}
    try:
        study = petra.compress(
            model,
            task,
            objectives=("quality", "pinball", "zipped_bytes"),
            constraints=("pinball <= 2 * baseline", "zipped_bytes <= 1.5 * baseline"),
            space={"stages": ["tune", "quantize.dynamic"], "initial": [[tuned]]},
            budget={"trials": 1},
            workdir=tmp_path / "study",
        )
        base, trial = study.trials
        assert trial.status is TrialStatus.COMPLETE, trial.failure
        assert trial.pipeline.stages[0].params["width"] == 0.2
        assert base.metrics["quality"].mean < 1.0, "better than repeating the last season"
        assert base.metrics["quality"].unit == "MASE"
        for found in (base, trial):
            file = study.directory / found.artifact
            assert found.metrics["zipped_bytes"].mean == packed([file])
            assert found.metrics["pinball"].stderr > 0
            assert {"quality", "pinball"} <= found.test.keys()
        text = to_text(front_view(study.front, width=160), width=160)
        assert "MASE (test)" in text
        assert "pinball loss (test)" in text
        assert "packed" in text
        assert {"pinball_test", "zipped_bytes"} <= set(study.front.table().columns)
        titles = study.front.plot().to_json()
        assert "pinball loss, validation" in titles
        card = study.front.pick("best").export(tmp_path / "out").parent / "MODEL_CARD.md"
        assert "| pinball loss, test (" in card.read_text()
        again = StudyRecord.load(study.directory)
        assert [metric.name for metric in again.task] == ["mase", "pinball"]
    finally:
        METRICS.forget("zipped_bytes")


class TwoHeads(nn.Module):
    """Says where and how sure."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 32), nn.ReLU())
        self.place, self.width = nn.Linear(32, 1), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.body(x)
        return {"place": self.place(y), "log_width": self.width(y)}


def surprise(outputs: Outputs, target: Tensor) -> Tensor:
    """Negative log likelihood of a normal distribution, without its constant."""
    off = (target - outputs["place"][:, 0]) / outputs["log_width"][:, 0].exp()
    return (off.square() / 2 + outputs["log_width"][:, 0]).mean()


def nll(outputs: Outputs, targets: Tensor, ids: Tensor) -> float:
    return float(surprise(outputs, targets))


def absolute(prediction: Tensor, targets: Tensor) -> float:
    return float((prediction[:, 0] - targets).abs().mean())


@pytest.mark.slow
def test_a_task_of_two_functions_over_two_outputs(tmp_path: Path) -> None:
    """The quality needs both outputs of the file, and petra knows neither."""
    torch.manual_seed(0)
    x = torch.randn(300, 4)
    y = x[:, 0] - x[:, 1] + 0.3 * torch.randn(300)
    parts = [(x[a:b], y[a:b]) for a, b in ((0, 200), (200, 250), (250, 300))]
    off = petra.scorer(absolute, maximize=False, title="absolute error")
    task = petra.task(*parts, loss=surprise, score=nll, maximize=False, metrics=[off])
    model = TwoHeads()
    fit(model, task, TrainConfig(epochs=20, lr=0.01, optimizer="adamw", batch_size=32), seed=0)
    study = petra.compress(
        model,
        task,
        objectives=("quality", "absolute", "size"),
        space={"stages": ["distill"], "initial": [["distill"]]},
        budget={"trials": 1},
        workdir=tmp_path / "study",
    )
    base, trial = study.trials
    assert trial.status is TrialStatus.COMPLETE, trial.failure
    outputs, targets = predict_all(model.eval(), task.val)
    assert base.metrics["quality"].mean == pytest.approx(nll(outputs, targets, targets), rel=1e-4)
    expected = absolute(outputs["place"], targets)
    assert base.metrics["absolute"].mean == pytest.approx(expected, rel=1e-4)
    assert base.metrics["quality"].stderr > 0
