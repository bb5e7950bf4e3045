"""A classifier that gives some classes a logit of minus infinity: every stage and its file keep to
that.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import petra
from petra.core.pipeline import Pipeline
from petra.execute.apply import apply_pipeline
from petra.methods.base import Context
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.runtimes.verify import compare

X = torch.randn(96, 3, 12, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0].mean(1) > 0).long()
STAGES = (
    *("tune", "distill", "prune.structured", "prune.depth", "prune.unstructured", "lowrank.svd"),
    *(
        "repair.batchnorm",
        "quantize.static",
        "quantize.qat",
        "quantize.dynamic",
        "quantize.weights",
    ),
)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(16, 16, 3, padding=1), nn.BatchNorm1d(16)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm(self.conv(x)))


class Excluding(nn.Module):
    """Four classes, of which the last two are not used in this product."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(3, 16, 3, padding=1)
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.inner, self.head = nn.Linear(16, 64), nn.Linear(64, 4)
        self.register_buffer("excluded", torch.tensor([False, False, True, True]))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.inner(self.blocks(self.stem(x)).mean(-1)))
        return self.head(x).masked_fill(self.excluded, float("-inf"))


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_treats_it(stage: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Excluding().eval()
    task = petra.classification((X[:64], Y[:64]), (X[64:80], Y[64:80]), (X[80:], Y[80:]))
    pipeline = Pipeline.from_list([stage])
    result, traces = apply_pipeline(
        model,
        pipeline,
        lambda prefix: Context(task=task, teacher=model, seed=1),
        cache=None,
        on_stage=lambda index, spec: None,
    )
    assert traces[-1].touched
    files = OnnxRuntime().export(result, task.example(2), tmp_path / "model.onnx")
    with torch.no_grad():
        expected = result(X).numpy()
    got = OnnxRuntime().load(files[0]).run({"input": X.numpy()})["output"]
    assert np.isneginf(got[:, 2:]).all()
    assert np.isfinite(got[:, :2]).all()
    parity = compare(
        got, expected, quantized=True, score=lambda values: float(values[:, :2].mean())
    )
    assert parity["relative_error"] < 0.05
