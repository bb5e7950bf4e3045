"""An error that exploded is explained: by the layer where it begins, and by the range there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import petra
from petra.core.trial import EXPLAINED, StageTrace
from petra.execute.activations import passed_through
from petra.execute.explain import RISE, Layer, explained, where_it_begins
from petra.methods.base import Context
from petra.methods.quantize.ptq import quantize_static
from petra.methods.table import STAGES
from petra.model.copies.copying import copy_model
from petra.report.outcomes import explanation
from petra.store.traces import write_traces
from petra.tasks.base import Task

BEGUN = (StageTrace("tune"), StageTrace("quantize.static", details={"samples": 8}))


class Convolutional(nn.Module):
    """With a norm that is folded into its convolution, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv1d(2, 8, 3, padding=1, bias=False), nn.BatchNorm1d(8)
        self.b, self.head = nn.Conv1d(8, 8, 3, padding=1), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.a(x)))
        return self.head(torch.relu(self.b(x)).mean(-1))


@pytest.fixture(scope="module")
def problem() -> tuple[nn.Module, Task]:
    """A model whose targets are what it puts out but for a little noise; one validation item in
    twenty is ten times as large as those that it is trained on.
    """
    torch.manual_seed(0)
    model = Convolutional()
    x, val = torch.randn(400, 2, 20), torch.randn(400, 2, 20)
    with torch.no_grad():
        model(x)
    model.eval()
    val[::20] *= 10
    pairs = []
    for inputs in (x, val):
        with torch.no_grad():
            y = model(inputs)
        pairs.append((inputs, y + 0.02 * y.std() * torch.randn(y.shape)))
    return model, petra.regression(pairs[0], pairs[1], pairs[1])


def said(model: nn.Module, after: nn.Module, task: Task) -> dict[str, Any]:
    trace = explained(model, after, task, BEGUN)
    assert trace[:-1] == BEGUN[:-1]
    assert trace[-1].details["samples"] == 8
    found: Any = trace[-1].details.get(EXPLAINED)
    assert isinstance(found, dict)
    json.dumps(found, allow_nan=False)
    write_traces(trace, where="here")
    return found


def test_a_range_that_clips_is_named_with_what_reaches_it(problem: tuple[nn.Module, Task]) -> None:
    model, task = problem
    narrow = torch.randn(64, 2, 20)
    result = quantize_static(model, narrow[:2], [narrow], observer="minmax", exclude=frozenset())
    found = said(model, result.model, task)
    assert found["layer"] == "a"
    layer = next(one for one in found["layers"] if one["path"] == "a")
    assert layer["range"] == pytest.approx([float(narrow.min()), float(narrow.max())], rel=0.02)
    assert layer["reached"][1] > 3 * layer["range"][1]
    assert 0.1 < layer["beyond"] < 0.9
    assert "of its inputs lie beyond the range" in found["words"]
    assert found["words"].startswith("rmse ")
    assert found["after"] > (1 + RISE) * found["before"]


def test_a_layer_that_computes_otherwise_is_named(problem: tuple[nn.Module, Task]) -> None:
    model, task = problem
    for path in ("a", "norm", "b", "head"):
        other = copy_model(model)
        with torch.no_grad():
            other.get_submodule(path).weight *= -1.5  # type: ignore[operator]
        found = said(model, other, task)
        assert found["layer"] == path
        assert f"it begins in layer {path!r}" in found["words"]
        assert "it puts out [" in found["words"]


def test_few_weight_codes_show_in_the_layer_that_has_them(problem: tuple[nn.Module, Task]) -> None:
    model, task = problem
    x, _ = next(iter(task.val.batches(400)))
    result = quantize_static(
        model, x[:2], [x], observer="minmax", exclude=frozenset({"a", "head"}), weight_max=1
    )
    found = said(model, result.model, task)
    assert found["layer"] == "b"
    assert "rounded to steps of" in found["words"]


def test_layers_of_another_width_are_said_to_be(problem: tuple[nn.Module, Task]) -> None:
    model, task = problem
    stage = STAGES.get("prune.structured")(ratio=0.75, round_to=1)  # type: ignore[call-arg]
    cut, _ = stage.apply(copy_model(model), Context(task=task, teacher=model, seed=0))
    found = said(model, cut, task)
    assert {layer["path"] for layer in found["layers"] if layer["error"] is None} >= {"a", "b"}
    assert found["layer"] == "head"


def test_nothing_is_said_where_nothing_exploded(problem: tuple[nn.Module, Task]) -> None:
    model, task = problem
    assert explained(model, copy_model(model), task, BEGUN) == BEGUN
    assert explained(model, model, task, ()) == ()
    x = torch.randn(30, 2, 20)
    labels = (x, torch.arange(30) % 3)
    classes = petra.classification(labels, labels, labels)
    one, other = (nn.Sequential(nn.Flatten(), nn.Linear(40, 3)) for _ in range(2))
    assert explained(one, other, classes, BEGUN) == BEGUN


def test_what_is_no_number_is_explained_too(problem: tuple[nn.Module, Task]) -> None:
    model, task = problem
    broken = copy_model(model)
    with torch.no_grad():
        broken.get_submodule("b").weight[0, 0, 0] = torch.inf  # type: ignore[index,union-attr]
    found = said(model, broken, task)
    assert found["layer"] == "b"
    assert found["after"] == "nan"
    assert "-> nan on 128 validation items: it begins in layer 'b'" in found["words"]


def test_of_what_is_to_be_large_the_error_is_what_it_lacks(problem: tuple[nn.Module, Task]) -> None:
    """A coefficient of determination of 0.99 instead of 0.999 is an error ten times as large."""

    def r2(prediction: Tensor, target: Tensor) -> float:
        off = (prediction - target).double().square().mean()
        return 1 - float(off / target.double().var(correction=0))

    model, task = problem
    judged = petra.regression(task.val, task.val, task.val, metric=petra.scorer(r2, maximize=True))
    other = copy_model(model)
    with torch.no_grad():
        other.get_submodule("head").weight *= 0.95  # type: ignore[operator]
    found = said(model, other, judged)
    assert found["before"] > found["after"] > (1 - RISE) * found["before"]
    assert found["words"].startswith("r2 0.99")
    assert "(its error +" in found["words"]


def test_an_explanation_that_fails_is_none(problem: tuple[nn.Module, Task]) -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("not today")

    model, task = problem
    found = said(model, Fails(), task)
    assert found == {"words": "could not be explained: ValueError: not today"}


def test_quantized_graphs_are_compared_with_norms_folded(problem: tuple[nn.Module, Task]) -> None:
    """Rounding alone makes small errors in every layer: what is compared is the same value."""
    model, _ = problem
    x = torch.randn(64, 2, 20)
    result = quantize_static(model, x[:2], [x], observer="minmax", exclude=frozenset())
    theirs, ours = passed_through(model, result.model, x)
    assert list(theirs) == list(ours) == ["a", "b", "head"]
    for path, passed in theirs.items():
        assert Layer.of(path, passed, ours[path]).error < 0.1  # type: ignore[operator]


@pytest.mark.parametrize(
    ("errors", "place"),
    [
        ([0.01, 0.02, 0.5, 0.6], 2),
        ([0.9, 1.0, 1.1], 0),
        ([None, None, 0.4], 2),
        ([0.01, 0.012, 0.009], 0),
        ([0.1, 0.3, 3.0, 2.0], 2),
        ([0.0, 0.0], 0),
    ],
)
def test_where_it_begins(errors: list[float | None], place: int) -> None:
    layers = [Layer(str(i), error, (0.0, 1.0), (0.0, 1.0)) for i, error in enumerate(errors)]
    assert where_it_begins(layers) == place


@pytest.mark.slow
def test_a_study_keeps_it_with_the_trial(problem: tuple[nn.Module, Task], tmp_path: Path) -> None:
    model, task = problem
    bad = {"stage": "quantize.static", "params": {"weight_max": 1, "exclude": "none"}}
    study = petra.compress(
        model,
        task,
        budget={"trials": 1},
        space={"initial": [[bad]], "recipes": False, "stages": ["quantize.static"]},
        constraints=["quality <= 1.02 * baseline"],
        workdir=tmp_path / "study",
    )
    trial = study.trials[1]
    assert trial.status.value == "infeasible", trial.failure
    assert explanation(trial).startswith("rmse ")
    assert "it begins in layer" in explanation(trial)
