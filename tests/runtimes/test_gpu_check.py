"""The GPU check on the CPU: its rows, its guards, and its silence where there is no GPU."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petra.core.target import Target
from petra.runtimes.table import runtime_for

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_check.py"
LATER = time.perf_counter() + 1e6


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)  # its own folder, as when it is run
        spec.loader.exec_module(module)
    return module


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 32))


X = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_every_pipeline_ships_and_agrees(script: ModuleType) -> None:
    network = script.Network(build, X, tuple(script.PIPELINES))
    rows = {row.what: row for row in script.check({"tiny": network}, ("torch",), 3, LATER)}
    assert list(rows) == list(script.PIPELINES)
    assert not [row.failure for row in rows.values() if row.failure]
    assert all(row.latency_ms > 0 for row in rows.values())
    assert rows["fp32"].error < 1e-5
    assert rows["bf16"].size_mb < rows["fp32"].size_mb
    # Float8 needs a GPU.
    assert {what: row.kernels for what, row in rows.items() if row.kernels} == {"int8 rows": 2}
    assert all(row.text(1.0).count("|") == 10 for row in rows.values())


def test_a_file_that_disagrees_fails(script: ModuleType, tmp_path: Path) -> None:
    model = build().eval()
    path = tmp_path / "model.pt2"
    runtime_for(Target("torch")).export(model, X[:2], path)
    with torch.no_grad():
        expected = model(X).numpy()
    assert not script.measure("tiny", "fp32", "torch", path, X, expected, 2).failure
    off = expected + 0.01 * expected.std()
    assert "disagrees" in script.measure("tiny", "fp32", "torch", path, X, off, 2).failure
    assert not script.measure("tiny", "bf16", "torch", path, X, off, 2).failure


def test_what_fails_is_a_row_with_its_reason(script: ModuleType) -> None:
    def broken() -> nn.Module:
        raise ImportError("no module named transformers")

    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no kernel | image")

    chosen = {
        "absent": script.Network(broken, X, ("fp32",)),
        "failing": script.Network(Fails, X, ("fp32",)),
        "tiny": script.Network(build, X, ("fp32", "bf16")),
    }
    rows = list(script.check(chosen, ("torch",), 2, LATER))
    failures: dict[Any, str] = {(row.network, row.what): row.failure for row in rows}
    assert "transformers" in failures.pop(("absent", "all"))
    assert "no kernel | image" in failures.pop(("failing", "fp32"))
    assert failures == {("tiny", "fp32"): "", ("tiny", "bf16"): ""}
    assert all(row.text(1.0).count("|") == 10 for row in rows)
    late = list(script.check({"tiny": chosen["tiny"]}, ("torch",), 2, 0.0))
    assert {row.failure for row in late} == {"not run: out of time"}


def test_the_plan_has_every_precision_and_both_networks(script: ModuleType) -> None:
    networks = script.networks()
    assert set(networks["BERT-base"].pipelines) == set(script.PIPELINES)
    assert set(networks["ResNet-50"].pipelines) >= {"fp32", "fp16", "bf16"}
    assert set(script.ON_GPU) == {"torch.cuda", "torch.compile.cuda"}


@pytest.mark.slow
def test_every_stage_is_tried_on_the_device(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "ZOO", ("mlp",))
    found = {kind: (outcome, why) for kind, _, outcome, why in script.stages_on("cpu", LATER)}
    assert set(found) == set(script.STAGES.names())
    assert "fails" not in {outcome for outcome, _ in found.values()}, found
    assert {outcome for _, _, outcome, _ in script.stages_on("cpu", 0.0)} == {"fails"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing() -> None:
    results = SCRIPT.parent / "results" / "gpu-check.md"
    before = results.read_bytes() if results.exists() else None
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=True)
    assert "gpu-check: skipped, nothing was run or written" in done.stdout
    assert (results.read_bytes() if results.exists() else None) == before
