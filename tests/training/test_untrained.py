"""Parts that a model keeps from gradients: training says so, and says what it changed."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.pipeline import Pipeline
from petra.core.trial import StageTrace
from petra.execute.apply import apply_pipeline
from petra.methods.base import Context
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.training.untrained import untrained


class Frozen(nn.Module):
    """A backbone that is not trained, in one of the ways in which people say so."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.backbone = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        with self._without():
            x = self.backbone(x)
        return self.head(x.detach() if self.how == "detach" else x)

    def _without(self) -> AbstractContextManager[Any]:
        match self.how:
            case "no_grad":
                return torch.no_grad()
            case "set_grad_enabled":
                return torch.set_grad_enabled(False)
            case "inference_mode":
                return torch.inference_mode()
        return nullcontext()


class Decorated(Frozen):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class Leaf(nn.Module):
    """Its own weights, used under its own decorator."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8, 4))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return x @ self.scale


@pytest.fixture(scope="module")
def task() -> Task:
    x = torch.randn(80, 8, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    return classification((x[:48], y[:48]), (x[48:64], y[48:64]), (x[64:], y[64:]))


def _run(model: nn.Module, task: Task, kind: str, **params: Any) -> tuple[nn.Module, StageTrace]:
    if kind in ("tune", "distill", "quantize.qat"):
        params = {"epochs": 1, "batch_size": 16, **params}
    pipeline = Pipeline.from_list([{"stage": kind, "params": params}])
    result, (trace,) = apply_pipeline(
        model.eval(),
        pipeline,
        lambda prefix: Context(task=task, teacher=model, seed=1),
        cache=None,
        on_stage=lambda index, spec: None,
    )
    return result, trace


@pytest.mark.parametrize("kind", ["tune", "distill", "quantize.qat"])
@pytest.mark.parametrize("how", ["no_grad", "set_grad_enabled", "detach"])
def test_what_gets_no_gradient_does_not_move_and_is_named(how: str, kind: str, task: Task) -> None:
    model = Frozen(how)
    result, trace = _run(model, task, kind)
    word = "detached" if how == "detach" else "torch.no_grad()"
    named = trace.details["untrained"] if kind == "quantize.qat" else trace.skipped
    assert set(named) == {"backbone.0", "backbone.2"}
    assert all(word in reason for reason in named.values())
    if kind == "quantize.qat":
        return
    assert trace.touched == ("head",)
    assert torch.equal(result.backbone[0].weight, model.backbone[0].weight)
    assert not torch.equal(result.head.weight, model.head.weight)


@pytest.mark.parametrize("kind", ["tune", "distill", "quantize.qat"])
@pytest.mark.parametrize(
    ("model", "word"),
    [
        (Decorated(""), "no_grad"),
        (Frozen("inference_mode"), "inference_mode"),
        (Leaf(), "no_grad"),
        (nn.Sequential(Leaf(), nn.Softmax(-1)), "no_grad"),
    ],
    ids=["decorated", "inference mode", "leaf", "leaf inside"],
)
def test_training_what_cannot_be_trained_is_refused_at_the_start(
    model: nn.Module, word: str, kind: str, task: Task
) -> None:
    with pytest.raises(StageRefused, match=rf"cannot be trained: .*{word}"):
        _run(model, task, kind)


@pytest.mark.parametrize("how", ["no_grad", "set_grad_enabled", "inference_mode", "decorated"])
@pytest.mark.parametrize("importance", ["magnitude", "taylor", "hessian"])
def test_structure_and_importance_are_seen_through_it(
    how: str, importance: str, task: Task
) -> None:
    model = Decorated("") if how == "decorated" else Frozen(how)
    plain = Frozen("")
    plain.load_state_dict(model.state_dict())
    _, trace = _run(model, task, "prune.structured", importance=importance)
    _, expected = _run(plain, task, "prune.structured", importance=importance)
    assert trace == _timed_as(expected, trace)


def _timed_as(trace: StageTrace, other: StageTrace) -> StageTrace:
    return dataclasses.replace(trace, seconds=other.seconds, peak_memory_mb=other.peak_memory_mb)


def test_importance_by_gradients_leaves_alone_what_has_none(task: Task) -> None:
    _, trace = _run(Frozen("detach"), task, "prune.unstructured", importance="taylor")
    assert trace.touched == ("head",)
    assert all("detached" in reason for reason in trace.skipped.values())

    class Detached(Frozen):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    with pytest.raises(StageRefused, match="detaches"):
        _run(Detached(""), task, "prune.unstructured", importance="taylor")


def test_looking_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = torch.randn(4, 8)
    state = torch.random.get_rng_state()
    assert untrained(model, x) == {}
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())
