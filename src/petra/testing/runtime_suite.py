"""What every runtime promises. Subclass and say which runtime:

class TestMine(RuntimeSuite):
    runtime = MyRuntime
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from petra.core.errors import ArtifactError
from petra.core.target import Target
from petra.runtimes.base import Runtime
from petra.tasks.inputs import Inputs, call, named, named_outputs, unnamed
from petra.testing.stage_suite import ResidualNet


class _Two(nn.Module):
    """Two inputs of different types, two named outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.linear = nn.Linear(6, 3)

    def forward(self, tokens: Tensor, scale: Tensor) -> dict[str, Tensor]:
        hidden = self.embedding(tokens).mean(1) * scale
        return {"hidden": hidden, "logits": self.linear(hidden)}


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2))


def _two_inputs() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 11, (4, 7), generator=g), torch.rand(4, 1, generator=g)


CASES: dict[str, Callable[[], tuple[nn.Module, Inputs]]] = {
    "convolutions": lambda: (ResidualNet(8), torch.randn(4, 3, 8, 8)),
    "1-D": lambda: (
        nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)),
        torch.randn(4, 2, 8),
    ),
    "perceptron": lambda: (_mlp(), torch.randn(4, 5)),
    "tuple inputs": lambda: (_Two(), _two_inputs()),
    "dict inputs": lambda: (_Two(), dict(zip(("tokens", "scale"), _two_inputs(), strict=True))),
}


class RuntimeSuite:
    """Conformance tests of one runtime."""

    runtime: ClassVar[type[Runtime]]
    device: ClassVar[str] = "cpu"
    needs_torch: ClassVar[bool] = False  # whether the measuring process has to import it

    def made(self) -> Runtime:
        return self.runtime(Target(self.runtime.name, self.device))

    @pytest.fixture(autouse=True)
    def _runs_here(self) -> None:
        if missing := self.made().lacks():
            pytest.skip(f"{self.made().target.name}: {missing}")

    def exported(self, case: str, tmp_path: Path) -> tuple[nn.Module, Inputs, Path]:
        torch.manual_seed(0)
        model, example = CASES[case]()
        path = tmp_path / f"model{self.runtime.suffix}"
        files = self.made().export(model.eval(), example, path)
        assert files[0] == path
        assert all(f.is_file() for f in files)
        return model, example, path

    @pytest.mark.parametrize("case", CASES)
    def test_it_computes_what_the_model_computes_at_any_batch(
        self, case: str, tmp_path: Path
    ) -> None:
        model, example, path = self.exported(case, tmp_path)
        session = self.made().load(path)
        assert set(session.input_names) == set(named(example))
        for n in (1, 3, 9):
            tensors = {k: torch.cat([t] * 3)[:n] for k, t in named(example).items()}
            with torch.no_grad():
                expected = named_outputs(call(model, unnamed(tensors, like=example)))
            got = session.run({k: t.numpy() for k, t in tensors.items()})
            assert set(got) == set(expected)
            for name, value in expected.items():
                np.testing.assert_allclose(got[name], value.numpy(), atol=1e-5, rtol=1e-4)

    def test_the_file_stands_alone(self, tmp_path: Path) -> None:
        """Loaded and run by a fresh interpreter that knows the runtime and nothing of the model."""
        model, example, path = self.exported("convolutions", tmp_path)
        assert isinstance(example, Tensor)
        np.save(tmp_path / "x.npy", example.numpy(), allow_pickle=False)
        home = f"{self.runtime.__module__}:{self.runtime.__qualname__}"
        code = (
            "import importlib, json, pathlib, sys, numpy as np\n"
            "from petra.core.target import Target\n"
            f"module, name = {home!r}.split(':')\n"
            f"target = Target({self.runtime.name!r}, {self.device!r})\n"
            "runtime = getattr(importlib.import_module(module), name)(target)\n"
            f"session = runtime.load(pathlib.Path({str(path)!r}))\n"
            f"out = session.run({{'input': np.load({str(tmp_path / 'x.npy')!r})}})\n"
            "print(json.dumps([next(iter(out.values())).tolist(), 'torch' in sys.modules]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        with torch.no_grad():
            expected = model(example).numpy()
        got, torch_loaded = json.loads(done.stdout.splitlines()[-1])
        np.testing.assert_allclose(got, expected, atol=1e-5)
        assert torch_loaded == self.needs_torch

    def test_its_snippet_runs_the_file(self, tmp_path: Path) -> None:
        """As it stands, with the runtime's library alone."""
        _, _, path = self.exported("perceptron", tmp_path)
        session = self.made().load(path)
        snippet = self.made().snippet(str(path), session.inputs)
        code = (
            f"{snippet}\nimport json, sys\n"
            "if hasattr(outputs, 'values') and not hasattr(outputs, 'shape'):\n"
            "    outputs = list(outputs.values())\n"
            "value = outputs if hasattr(outputs, 'shape') else outputs[0]\n"
            "print(json.dumps([value.tolist(), 'torch' in sys.modules]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        got, torch_loaded = json.loads(done.stdout.splitlines()[-1])
        expected = session.run({"input": np.zeros((1, 5), np.float32)})
        np.testing.assert_allclose(got, next(iter(expected.values())), atol=1e-5)
        assert torch_loaded == self.needs_torch

    def test_the_batch_of_its_files_is_the_one_it_declares(self, tmp_path: Path) -> None:
        path = tmp_path / f"model{self.runtime.suffix}"
        runtime = self.runtime(Target(self.runtime.name, self.device, batch=3))
        runtime.export(_mlp().eval(), torch.randn(2, 5), path)
        (spec,) = runtime.load(path).inputs
        assert spec.shape == (runtime.fixed_batch, 5)
        assert runtime.fixed_batch in (None, 3)

    def test_it_describes_itself(self) -> None:
        runtime = self.made()
        assert runtime.description()
        assert runtime.libraries
        assert 1 <= runtime.kernels.largest_weight <= 127
        low, high = runtime.kernels.activations
        assert (low, high) in ((0, 255), (-128, 127))
        assert self.runtime.files(Path("no/such/file")) == [Path("no/such/file")]

    def test_exporting_leaves_the_model_as_it_was(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        model, example = CASES["convolutions"]()
        model.eval()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        self.made().export(model, example, tmp_path / f"model{self.runtime.suffix}")
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
        assert not model.training

    @pytest.mark.parametrize("content", [b"", b"nonsense", None])
    def test_bad_files_are_artifact_errors(self, content: bytes | None, tmp_path: Path) -> None:
        path = tmp_path / f"broken{self.runtime.suffix}"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ArtifactError) as caught:
            self.made().load(path)
        assert str(path) in str(caught.value)

    def test_a_truncated_file_is_an_artifact_error(self, tmp_path: Path) -> None:
        _, _, path = self.exported("convolutions", tmp_path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ArtifactError):
            self.made().load(path)

    def test_missing_inputs_are_named(self, tmp_path: Path) -> None:
        _, _, path = self.exported("perceptron", tmp_path)
        with pytest.raises(ArtifactError, match="input"):
            self.made().load(path).run({"other": np.zeros((1, 5), np.float32)})

    def test_inputs_that_do_not_fit_are_artifact_errors(self, tmp_path: Path) -> None:
        _, _, path = self.exported("perceptron", tmp_path)
        with pytest.raises(ArtifactError, match=r"\(2, 7\)"):
            self.made().load(path).run({"input": np.zeros((2, 7), np.float32)})

    def test_it_knows_its_version(self) -> None:
        assert self.made().version()
