"""Every kind of stage on models whose forward pass keeps what it computes, or takes its inputs in
odd ways."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petra.core.pipeline import Pipeline
from petra.execute.apply import apply_pipeline
from petra.methods.base import Context
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.tasks.inputs import Inputs, call, map_inputs, named_outputs

STAGES: dict[str, list[dict[str, Any]]] = {
    "structured": [{"stage": "prune.structured", "params": {"round_to": 1}}],
    "taylor": [{"stage": "prune.structured", "params": {"round_to": 1, "importance": "taylor"}}],
    "tune and structured": [
        {"stage": "tune", "params": {"epochs": 1, "batch_size": 16}},
        {"stage": "prune.structured", "params": {"round_to": 1}},
    ],
    "distill": [{"stage": "distill", "params": {"epochs": 1, "batch_size": 16}}],
    "svd": [{"stage": "lowrank.svd", "params": {"rule": "ratio", "ratio": 0.3}}],
    "dynamic": [{"stage": "quantize.dynamic", "params": {}}],
    "static": [{"stage": "quantize.static", "params": {"samples": 32}}],
    "qat": [{"stage": "quantize.qat", "params": {"epochs": 1, "batch_size": 16, "samples": 32}}],
}


class Keeps(nn.Module):
    """Attention that keeps its weights, for plots."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.head = (
            nn.Linear(8, 16),
            nn.Linear(8, 16),
            nn.Linear(8, 16),
            nn.Linear(16, 4),
        )
        self.weights: Tensor | None = None
        self.history: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(1).expand(-1, 3, -1)
        self.weights = torch.softmax(self.q(x) @ self.k(x).transpose(1, 2) / 4, -1)
        self.history.append(self.weights)
        return self.head((self.weights @ self.v(x)).mean(1))


class Hooked(nn.Module):
    """A hook, which knows the model, keeps what a layer puts out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 32), nn.Linear(32, 4)
        self.kept: dict[str, Tensor] = {}
        self.a.register_forward_hook(lambda module, inputs, output: self.kept.update(a=output))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))


class ByName(Hooked):
    def forward(self, **inputs: Tensor) -> Tensor:
        return super().forward(inputs["x"])


def _task(*, keyed: bool) -> Task:
    x = torch.randn(80, 8, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    parts: list[tuple[Inputs, Tensor]] = [
        ({"x": x[a:b]} if keyed else x[a:b], y[a:b]) for a, b in ((0, 48), (48, 64), (64, 80))
    ]
    return classification(*parts)


@pytest.mark.parametrize("stages", STAGES)
@pytest.mark.parametrize(
    "model",
    [Keeps(), Hooked(), ByName(), nn.DataParallel(Hooked())],
    ids=["keeps attention", "hooked", "by name", "DataParallel"],
)
def test_every_kind_of_stage(model: nn.Module, stages: str) -> None:
    task = _task(keyed=isinstance(model, ByName))
    if not isinstance(model, ByName):
        call(model.train(), task.example(2))
        model(task.example(3))  # with gradients, as in its owner's training
    model.eval()
    result, traces = apply_pipeline(
        model,
        Pipeline.from_list(STAGES[stages]),
        lambda prefix: Context(task=task, teacher=model, seed=1),
        cache=None,
        on_stage=lambda index, spec: None,
    )
    assert traces[-1].touched
    with torch.no_grad():
        whole = named_outputs(call(result, task.example(6)))["output"]
        part = named_outputs(call(result, map_inputs(task.example(6), lambda t: t[:3])))["output"]
    assert whole.isfinite().all()
    if stages != "dynamic":  # whose ranges are those of a batch
        torch.testing.assert_close(whole[:3], part, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("stages", ["structured", "dynamic", "distill"])
def test_batch_norms_without_running_statistics(stages: str) -> None:
    x = torch.randn(80, 1, 8, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0, 0] > 0).long()
    task = classification((x[:48], y[:48]), (x[48:64], y[48:64]), (x[64:], y[64:]))
    norm = nn.BatchNorm1d(16, track_running_stats=False)
    model = nn.Sequential(
        nn.Conv1d(1, 16, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(96, 2)
    ).eval()
    result, traces = apply_pipeline(
        model,
        Pipeline.from_list(STAGES[stages]),
        lambda prefix: Context(task=task, teacher=model, seed=1),
        cache=None,
        on_stage=lambda index, spec: None,
    )
    assert traces[-1].touched
    assert named_outputs(call(result, x[:4]))["output"].isfinite().all()
