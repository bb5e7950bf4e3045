"""The GPU check on the CPU: its rows, its guards, and its silence where there is no GPU."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_check.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module
    spec.loader.exec_module(module)
    return module


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 32))


X = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("what", "share", "error"),
    [
        ("fp32", (1.0, 1.0), 0.0),
        ("bf16", (0.5, 0.5), 2e-2),
        ("int8 weights and activations", (0.25, 0.35), 5e-2),
    ],
)
def test_a_row_has_latency_size_and_error(
    script: ModuleType, what: str, share: tuple[float, float], error: float
) -> None:
    torch.manual_seed(0)
    model = build().eval()
    row = script.on_device("tiny", what, script.CHANGES[what], model, X, "eager", 3)
    assert not row.failure
    assert row.latency_ms > 0
    assert share[0] <= row.size_mb / script.size_mb(model) <= share[1]
    assert row.error <= error
    assert (row.error > 0) == (what != "fp32")


def test_a_runtime_s_row_goes_through_the_file(script: ModuleType) -> None:
    model = build().eval()
    row = script.through_runtime("tiny", "bf16", script.CHANGES["bf16"], model, X, "torch", 3)
    assert 0 < row.error < 2e-2
    assert row.size_mb > script.size_mb(model) / 2


def test_half_of_every_four_weights_goes_the_smaller_half(script: ModuleType) -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(10, 10))
    before = [layer.weight.detach().clone() for layer in (model[0], model[1])]
    script.keep_two_of_four(model)
    groups, old = model[0].weight.view(-1, 4), before[0].view(-1, 4)
    assert (groups != 0).sum(1).eq(2).all()
    for kept, was in zip(groups, old, strict=True):
        assert was[kept == 0].abs().max() <= was[kept != 0].abs().min()
    assert torch.equal(model[1].weight, before[1])  # too small for the kernels


def test_what_fails_is_a_row_with_its_reason(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> nn.Module:
        raise ImportError("no module named transformers")

    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no kernel | image")

    monkeypatch.setattr(
        script, "plan", lambda network, device: [(network, "fp32", "eager"), (network, "bf16", "eager")]
    )
    networks = {"absent": (broken, X), "tiny": (build, X), "failing": (Fails, X)}
    rows = list(script.check(networks, "cpu", 2))
    failures = {(row.network, row.what): row.failure for row in rows}
    assert "transformers" in failures.pop(("absent", "all"))
    assert failures == {
        ("tiny", "fp32"): "",
        ("tiny", "bf16"): "",
        ("failing", "fp32"): "RuntimeError: no kernel | image",
        ("failing", "bf16"): "RuntimeError: no kernel | image",
    }
    assert all(row.text(1.0).count("|") == 9 for row in rows)
    monkeypatch.setattr(script, "BUDGET_S", -1.0)
    late = list(script.check({"tiny": (build, X)}, "cpu", 2))
    assert {row.failure for row in late} == {"not run: out of time"}


def test_every_change_and_both_runtimes_are_in_the_plan(script: ModuleType) -> None:
    rows = script.plan("BERT-base", "cuda")
    assert {what for _, what, _ in rows} == set(script.CHANGES)
    assert {how for *_, how in rows} >= {
        "CUDA graph", "torch.compile", "runtime torch.cuda", "runtime torch.compile.cuda"
    }  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing() -> None:
    results = SCRIPT.parent / "results" / "gpu-check.md"
    before = results.read_bytes() if results.exists() else None
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=True)
    assert "gpu-check: skipped, nothing was run or written" in done.stdout
    assert (results.read_bytes() if results.exists() else None) == before
