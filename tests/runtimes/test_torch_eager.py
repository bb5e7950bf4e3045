"""The .pt2 runtime: reload without the class, every calling convention, and nothing executed from a stranger's file."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from petra.core.errors import ArtifactError
from petra.runtimes.torch_eager import TorchEager, refuse_code
from petra.tasks.inputs import Inputs, call, named, named_outputs


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"logits": self.linear(a) + b.float().sum(1, keepdim=True)}


A, B = torch.randn(2, 4), torch.ones(2, 4, dtype=torch.int64)
CASES: dict[str, tuple[nn.Module, Inputs]] = {
    "tensor": (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), A),
    "tuple": (TwoInputs(), (A, B)),
    "dict": (TwoInputs(), {"b": B, "a": A}),
}


@pytest.mark.parametrize("case", CASES)
def test_round_trip_at_any_batch(case: str, tmp_path: Path) -> None:
    model, example = CASES[case]
    path = tmp_path / "model.pt2"
    assert TorchEager().export(model.eval(), example, path) == [path]
    session = TorchEager().load(path, threads=1)
    assert set(session.input_names) == set(named(example))
    for n in (1, 2, 7):
        arrays = {k: np.repeat(v.numpy(), n, axis=0)[:n] for k, v in named(example).items()}
        tensors = {k: torch.from_numpy(v) for k, v in arrays.items()}
        inputs = tensors["input"] if case == "tensor" else tensors if case == "dict" else tuple(tensors.values())
        expected = named_outputs(call(model, inputs))
        got = session.run(arrays)
        assert set(got) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(got[name], value.detach().numpy(), atol=1e-6)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt2"
    TorchEager().export(CASES["tensor"][0].eval(), A, path)
    return path


def tampered(path: Path, *, replace: dict[str, bytes] | None = None, edit: object = None) -> Path:
    """A copy with members replaced, added, or the program's JSON edited by a function."""
    out = path.with_name("tampered.pt2")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for item in source.namelist():
            content = source.read(item)
            if callable(edit) and item.endswith("models/model.json"):
                program = json.loads(content)
                edit(program)
                content = json.dumps(program).encode()
            for suffix, data in (replace or {}).items():
                if item.endswith(suffix):
                    content = data
            target.writestr(item, content)
        for suffix, data in (replace or {}).items():
            if not any(name.endswith(suffix) for name in source.namelist()):
                target.writestr(f"model{suffix}", data)
    return out


def _call_os(program: dict[str, object]) -> None:
    program["graph_module"]["graph"]["nodes"][0]["target"] = "torch.hub.load"  # type: ignore[index]


def _evil_expression(program: dict[str, object]) -> None:
    program["range_constraints"] = {"s0": {"expr_str": "__import__('os').system('true')"}}


def test_an_honest_file_passes(exported: Path) -> None:
    refuse_code(exported)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"replace": {"/data/sample_inputs/model.pt": b"\x80\x04."}}, "sample inputs"),
        ({"replace": {"/data/aotinductor/model/x.so": b"ELF"}}, "compiled"),
        (
            {"replace": {"model_constants_config.json": b'{"config": {"c": {"path_name": "c", "use_pickle": true}}}'}},
            "pickled",
        ),
        ({"edit": _call_os}, "torch.hub.load"),
        ({"edit": _evil_expression}, "suspicious"),
    ],
)
def test_files_that_could_run_code_are_refused(exported: Path, change: dict[str, object], words: str) -> None:
    with pytest.raises(ArtifactError, match=words):
        TorchEager().load(tampered(exported, **change), threads=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 truncated"])
def test_corrupt_files_are_artifact_errors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pt2"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"not a \.pt2 archive"):
        TorchEager().load(path, threads=1)


def test_missing_file_and_missing_input(exported: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        TorchEager().load(exported.with_name("absent.pt2"), threads=1)
    with pytest.raises(ArtifactError, match="wants inputs"):
        TorchEager().load(exported, threads=1).run({"other": A.numpy()})
