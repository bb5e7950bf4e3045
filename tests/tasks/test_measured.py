"""Losses and scorers as people give them: functions, values, names; their errors, their records."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from measured_data import LOGITS, SPLITS, VALUES, G, X, Y
from torch import Tensor, nn
from torch.nn import functional

import petra
from petra.api import create_or_continue
from petra.config import parse_config
from petra.core.errors import ConfigError, DataError, MissingExtra
from petra.core.measurement import Measurement
from petra.core.metric import Catalogue, task_metric
from petra.core.objective import Constraint
from petra.report.record import StudyRecord
from petra.tasks.inputs import Outputs
from petra.tasks.scorers import ResampledScorer, jackknife
from petra.tasks.torchmetric import torch_metric


class _Mean(ResampledScorer):
    """The plain mean, whose standard error is known."""

    metric = task_metric("mean", maximize=True)  # type: ignore[assignment]

    def value(self, outputs: Outputs, targets: Tensor, ids: Tensor) -> float:
        return float(outputs["output"].double().mean())


def test_the_jackknife_finds_the_error_of_a_mean() -> None:
    """Of 30 items in 30 groups it is the textbook formula exactly."""
    values, ids = torch.randn(30, generator=G), torch.arange(30)
    found = jackknife(_Mean(), {"output": values}, values, ids, 0.0)
    assert found == pytest.approx(float(values.double().std()) / math.sqrt(30), rel=1e-9)
    many = torch.randn(6000, generator=G)
    found = _Mean().measure({"output": many}, many, torch.arange(6000)).stderr
    assert found == pytest.approx(1 / math.sqrt(6000), rel=0.4)


def test_items_of_one_name_are_left_out_together() -> None:
    """Ten copies of every value say no more than one does."""
    values = torch.randn(30, generator=G)
    once = jackknife(_Mean(), {"output": values}, values, torch.arange(30), 0.0)
    copies, names = values.repeat_interleave(10), torch.arange(30).repeat_interleave(10)
    assert jackknife(_Mean(), {"output": copies}, copies, names, 0.0) == pytest.approx(once)
    apart = jackknife(_Mean(), {"output": copies}, copies, torch.arange(300), 0.0)
    assert apart < 0.6 * once


def test_a_task_made_of_two_functions() -> None:
    def error(prediction: Tensor, targets: Tensor) -> float:
        return float((prediction[:, 0] - targets).abs().mean())

    task = petra.task(*VALUES, loss=functional.mse_loss, score=error, maximize=False)
    assert (task.metric, task.maximize) == ("error", False)
    assert [loss.name for loss in task.losses()] == ["mse_loss"]
    found = task.score(X, X[:, 0] + 1)
    assert found.mean == pytest.approx(1.0)
    assert found.n == 60
    assert task.score(X + LOGITS, X[:, 0]).stderr > 0
    assert float(task.distance()({"a": X, "b": Y}, {"a": X + 2, "b": Y})) == pytest.approx(4.0)


def test_functions_may_see_all_outputs_and_ids() -> None:
    seen = {}

    def both(outputs: Outputs, target: Tensor) -> Tensor:
        return (outputs["a"][:, 0] + outputs["b"][:, 0] - target).square().mean()

    def spread(outputs: Outputs, targets: Tensor, ids: Tensor) -> Measurement:
        seen["ids"] = ids
        return Measurement(float(outputs["b"].std()), 0.25, len(targets))

    task = petra.task(*VALUES, loss=both, score=spread, maximize=True)
    outputs = {"a": X, "b": torch.zeros_like(X)}
    assert float(task.loss()(outputs, X[:, 0])) == 0.0
    assert task.scores(outputs, X[:, 0])["quality"] == Measurement(0.0, 0.25, 60)
    assert torch.equal(seen["ids"], torch.arange(60))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"loss": 3, "score": "accuracy"}, "loss: got 3"),
        ({"loss": [], "score": "accuracy"}, "losses called nothing"),
        ({"loss": {"default": functional.mse_loss}, "score": "accuracy"}, "called default"),
        ({"loss": functional.mse_loss, "score": 3}, "score: got 3"),
        ({"loss": functional.mse_loss, "score": len}, "whether more or less"),
        ({"loss": functional.mse_loss, "score": "mae", "metrics": ["mae"]}, "got mae, mae"),
        (
            {
                "loss": functional.mse_loss,
                "score": "mae",
                "metrics": [petra.scorer(len, maximize=True, name="size")],
            },
            "size is one of petra's own",
        ),
        ({"loss": functional.mse_loss, "score": "mae", "distance": 1}, "distance: got 1"),
    ],
)
def test_what_is_no_loss_or_score_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        petra.task(*VALUES, **given)  # type: ignore[arg-type]
    assert words in f"{caught.value.message}; {caught.value.hint}"


def test_a_function_that_returns_no_number_is_named() -> None:
    task = petra.task(*VALUES, loss=functional.mse_loss, score=lambda p, t: None, maximize=True)
    with pytest.raises(DataError, match="returned NoneType"):
        task.score(X, X[:, 0])


def test_several_metrics_have_records_of_their_own() -> None:
    wrong = petra.scorer(
        lambda p, t: float((p.argmax(1) != t).double().mean()), maximize=False, name="wrong"
    )
    task = petra.classification(*SPLITS, metrics=[wrong])
    found = task.scores({"output": LOGITS}, Y)
    assert list(found) == ["quality", "wrong"]
    assert found["quality"].mean + found["wrong"].mean == pytest.approx(1.0)
    assert found["wrong"].stderr == pytest.approx(found["quality"].stderr, rel=0.5)
    known = Catalogue(task.metrics())
    assert known["quality"].title == "accuracy"
    assert known.names()[:2] == ("quality", "wrong")
    assert not known["wrong"].maximize
    assert Constraint.parse("wrong <= 5 %", own=["wrong"]).offset == 0.05


# -- torchmetrics ------------------------------------------------------------------------------


def test_metrics_by_name() -> None:
    """Against formulas written out."""
    pytest.importorskip("torchmetrics")
    outputs, ids, guess = {"output": LOGITS}, torch.arange(60), LOGITS.argmax(1)
    f1 = []
    for c in range(3):
        hits = int(((guess == c) & (c == Y)).sum())
        f1.append(2 * hits / (int((guess == c).sum()) + int((c == Y).sum())))
    scorer = torch_metric("f1_macro")
    assert scorer.value(outputs, Y, ids) == pytest.approx(sum(f1) / 3, abs=1e-6)
    assert scorer.measure(outputs, Y, ids).stderr > 0
    recalls = [float((guess[c == Y] == c).double().mean()) for c in range(3)]
    found = torch_metric("balanced_accuracy").value(outputs, Y, ids)
    assert found == pytest.approx(sum(recalls) / 3, abs=1e-6)
    assert torch_metric("multiclass_cohen_kappa").metric.maximize
    assert not torch_metric("MeanSquaredError").metric.maximize
    truth = torch.randn(60, 2, generator=G)
    off = {"output": truth + 0.5}
    assert torch_metric("mse").value(off, truth, ids) == pytest.approx(0.25, abs=1e-5)
    assert torch_metric("pearson").value(off, truth, ids) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(ConfigError, match="there is no metric 'f1_makro'"):
        torch_metric("f1_makro")


def test_a_task_judged_by_a_name() -> None:
    pytest.importorskip("torchmetrics")
    task = petra.classification(*SPLITS, metric="f1_macro", metrics=["accuracy", "roc_auc"])
    assert [m.name for m in task.metrics()] == ["f1_macro", "accuracy", "roc_auc"]
    found = task.scores({"output": LOGITS}, Y)
    assert 0.5 < found["quality"].mean <= 1
    assert found["roc_auc"].mean > found["accuracy"].mean


def test_without_torchmetrics_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(MissingExtra, match="torchmetrics"):
        petra.classification(*SPLITS, metric="f1_macro")
    assert petra.classification(*SPLITS, metric="accuracy").metric == "accuracy"


# -- objectives and constraints by the names of a task's metrics -------------------------------


def settings(tmp_path: Path, **more: object) -> dict[str, object]:
    return {"budget": {"trials": 1}, "workdir": str(tmp_path / "study"), **more}


def wrong(prediction: Tensor, targets: Tensor) -> float:
    """Share of items that are not of the class chosen."""
    return float((prediction.argmax(1) != targets).double().mean())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"objectives": ["quality", "brier"]}, "objectives: unknown metric 'brier'"),
        ({"constraints": ["brier <= 0.1"]}, "constraints: unknown metric 'brier'"),
        ({"budget": {"trials": 1, "goal": "brier <= 0.1"}}, "budget.goal: unknown metric 'brier'"),
        ({"objectives": ["accuracy", "size"]}, "objectives: accuracy is the quality"),
    ],
)
def test_names_that_the_task_does_not_measure_are_refused_before_anything_is_written(
    tmp_path: Path, more: dict[str, object], words: str
) -> None:
    config = parse_config(settings(tmp_path, **more))
    task = petra.classification(*SPLITS, metrics=[petra.scorer(wrong, maximize=False)])
    with pytest.raises(ConfigError) as caught:
        create_or_continue(config, nn.Linear(3, 3), task)
    assert words in caught.value.message
    assert "wrong" in caught.value.hint or "'quality'" in caught.value.hint
    assert not (tmp_path / "study").exists()


def test_names_that_it_measures_have_their_direction(tmp_path: Path) -> None:
    config = parse_config(
        settings(
            tmp_path,
            objectives=["quality", "wrong", "size"],
            constraints=["wrong <= baseline + 0.05"],
        )
    )
    task = petra.classification(*SPLITS, metrics=[petra.scorer(wrong, maximize=False)])
    study = create_or_continue(config, nn.Linear(3, 3), task)
    assert [o.maximize for o in study.objectives] == [True, False, False]
    assert study.problem.constraints[0].metric == "wrong"
    # Not run yet, so nobody knows how the task describes it.
    assert StudyRecord.load(study.directory).catalogue.label("wrong") == "wrong"
