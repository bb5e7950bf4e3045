"""Metrics, losses and a task that petra does not know, each against its suite, and all of them in a
study with real training, files and measurements.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from multilabel import (
    LABELS,
    Asymmetric,
    HammingLoss,
    MeanAveragePrecision,
    average_precision,
    tagger,
    tagging,
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


def tags() -> Batch:
    target = (torch.rand(85, LABELS, generator=G) < 0.4).float()
    return {"output": 2 * target - 1 + torch.randn(85, LABELS, generator=G)}, target


class TestAsymmetric(LossSuite):
    loss = Asymmetric()

    @pytest.fixture
    def batch(self) -> Batch:
        return tags()


class _Tags(ScorerSuite):
    @pytest.fixture
    def batch(self) -> Batch:
        return tags()

    @pytest.fixture
    def worse(self, batch: Batch) -> Outputs:
        return {"output": -batch[0]["output"]}


class TestMeanAveragePrecision(_Tags):
    scorer = MeanAveragePrecision()


class TestHammingLoss(_Tags):
    scorer = HammingLoss()


@pytest.fixture(scope="module")
def problem() -> tuple[nn.Module, Task]:
    """A small tagger, trained for a few seconds."""
    torch.manual_seed(0)
    model = tagger()
    task = tagging()
    fit(model, task, TrainConfig(epochs=6, lr=0.01, optimizer="adamw", batch_size=32), seed=0)
    return model, task


class TestTagging(TaskSuite):
    @pytest.fixture
    def problem(self, problem: tuple[nn.Module, Task]) -> tuple[nn.Module, Task]:
        return problem


def test_average_precision_by_loops() -> None:
    outputs, target = tags()
    scores, present = outputs["output"][:, 0], target[:, 0] > 0.5
    total = 0.0
    for i in range(len(scores)):
        if present[i]:
            above = [j for j in range(len(scores)) if scores[j] >= scores[i]]
            total += sum(bool(present[j]) for j in above) / len(above)
    got = average_precision(scores, present)
    assert got == pytest.approx(total / int(present.sum()), rel=1e-6)


@pytest.mark.slow
def test_a_study_of_tags(problem: tuple[nn.Module, Task], tmp_path: Path) -> None:
    """Average precision as the quality, Hamming loss and packed bytes as objectives, a loss with a
    parameter of its own in the pipeline; everything shipped and shown.
    """
    model, task = problem
    METRICS.register("zipped_bytes", ZIPPED)
    params = {"loss": "asymmetric", "absent_gamma": 2.0, "epochs": 1}
    try:
        study = petra.compress(
            model,
            task,
            objectives=("quality", "hamming", "zipped_bytes"),
            constraints=("hamming <= 2 * baseline", "zipped_bytes <= 1.5 * baseline"),
            space={
                "stages": ["tune", "quantize.dynamic"],
                "initial": [[{"stage": "tune", "params": params}]],
            },
            budget={"trials": 1},
            workdir=tmp_path / "study",
        )
        base, trial = study.trials
        assert trial.status is TrialStatus.COMPLETE, trial.failure
        assert trial.pipeline.stages[0].params["absent_gamma"] == 2.0
        assert base.metrics["quality"].mean > 0.6, "a third of the labels are there"
        assert base.metrics["quality"].unit == "mAP"
        for found in (base, trial):
            file = study.directory / found.artifact
            assert found.metrics["zipped_bytes"].mean == packed([file])
            assert found.metrics["hamming"].stderr > 0
            assert {"quality", "hamming"} <= found.test.keys()
        text = to_text(front_view(study.front, width=160), width=160)
        assert "mAP (test)" in text
        assert "Hamming loss (test)" in text
        assert "packed" in text
        assert {"hamming_test", "zipped_bytes"} <= set(study.front.table().columns)
        titles = study.front.plot().to_json()
        assert "Hamming loss, validation" in titles
        card = study.front.pick("best").export(tmp_path / "out").parent / "MODEL_CARD.md"
        assert "| Hamming loss, test (" in card.read_text()
        again = StudyRecord.load(study.directory)
        assert [metric.name for metric in again.task] == ["mean_average_precision", "hamming"]
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
