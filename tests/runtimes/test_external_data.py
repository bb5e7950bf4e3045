"""Models past the limit of one ONNX file: two files that measure, load, ship and are judged as one
artifact.

The limit is lowered, so that a small model is past it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from petra.cli.main import app
from petra.core.errors import ArtifactError, ConfigError
from petra.core.measurement import Measurement
from petra.core.pipeline import Pipeline
from petra.core.target import Target
from petra.execute.build import BuildPayload, build_candidate
from petra.execute.built import Built
from petra.measure.client import write_split
from petra.methods.quantize.ptq import quantize_static
from petra.report.bundle import Member
from petra.report.study_front import StudyFront
from petra.runtimes import onnx_export
from petra.runtimes.base import Runtime
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.runtimes.openvino import OpenVino
from petra.runtimes.table import files_of
from petra.runtimes.verify import compare
from petra.testing.stage_suite import ResidualNet, small_problem
from petra.testing.studies import toy_study, write_onnx

X = torch.randn(9, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[OnnxRuntime, OpenVino])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    found: Runtime = request.param()
    if missing := found.lacks():
        pytest.skip(missing)
    return found


@pytest.fixture
def low(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "LARGEST", 4000)


def made(quantized: bool) -> nn.Module:
    torch.manual_seed(0)
    model = ResidualNet(16).eval()
    return (
        quantize_static(model, X[:2], [X], observer="minmax", exclude=frozenset()).model
        if quantized
        else model
    )


@pytest.mark.parametrize("quantized", [False, True])
def test_two_files_compute_what_the_model_computes(
    low: None, runtime: Runtime, quantized: bool, tmp_path: Path
) -> None:
    model = made(quantized)
    files = runtime.export(model, X[:2], tmp_path / "model.onnx")
    assert [f.name for f in files] == ["model.onnx", "model.onnx.data"]
    assert sorted(tmp_path.iterdir()) == files
    sizes = [f.stat().st_size for f in files]
    assert sizes[1] > 0.8 * sum(t.nbytes for t in onnx_weights(files[0]))
    got = runtime.load(files[0]).run({"input": X.numpy()})["output"]
    with torch.no_grad():
        expected: Tensor = model(X)
    compare(got, expected.numpy(), quantized=quantized, score=lambda p: float(p.sum()))


def onnx_weights(path: Path) -> list[np.ndarray]:
    return [
        onnx.numpy_helper.to_array(tensor, str(path.parent))
        for tensor in onnx.load(path).graph.initializer
    ]


def test_one_file_up_to_the_limit_and_nothing_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, path, x = OnnxRuntime(), tmp_path / "model.onnx", torch.randn(2, 8)
    model = nn.Linear(8, 100).eval()
    (whole,) = runtime.export(model, x, path)
    weights = sum(len(t.raw_data) for t in onnx.load(whole).graph.initializer)
    monkeypatch.setattr(onnx_export, "LARGEST", weights - 1)
    assert len(runtime.export(model, x, path)) == 2
    again = runtime.export(model, x, path)  # over its own files
    assert again[1].stat().st_size < weights
    monkeypatch.setattr(onnx_export, "LARGEST", weights)
    assert runtime.export(model, x, path) == [path]
    assert [*tmp_path.iterdir()] == [path]


def test_a_candidate_is_as_large_as_both_files(low: None, tmp_path: Path) -> None:
    model, task = small_problem()
    write_split(task.val, tmp_path / "data" / "val")
    payload = BuildPayload(model, task, Target(), 0, tmp_path / "data")
    place = tmp_path / "artifacts"
    (built,) = build_candidate(payload, lambda note: None, Pipeline(), ((Target(), place),))
    assert isinstance(built, Built)
    assert [f.name for f in built.files] == ["model.onnx", "model.onnx.data"]
    assert built.size_bytes == sum((place / f.name).stat().st_size for f in built.files)


def parted(path: Path) -> tuple[Path, Path]:
    """The model in `path` made two files."""
    proto = onnx.load(path)
    path.unlink()
    onnx.save_model(
        proto, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0
    )
    return path, path.with_name(f"{path.name}.data")


def astray(directory: Path, where: str) -> Path:
    """A model whose weights are said to be at `where`; they are outside its directory."""
    path, weights = parted(write_onnx(directory / "artifact" / "model.onnx", hidden=8))
    (path.parent / "inside").mkdir()
    outside = weights.rename(directory / "out.data")
    (path.parent / "link.data").symlink_to(outside)
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = where.format(absolute=outside)
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize(
    "where", ["../out.data", "{absolute}", "inside/../../out.data", "link.data", "gone.data"]
)
def test_weights_outside_the_artifacts_directory_are_refused(
    runtime: Runtime, where: str, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        runtime.load(astray(tmp_path, where))


def test_verify_refuses_weights_outside_the_artifacts_directory(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["verify", str(astray(tmp_path, "../out.data"))])
    assert result.exit_code == 2
    assert "cannot load this file" in " ".join(result.output.split())


# -- shipping --------------------------------------------------------------------------------------


@pytest.fixture
def member(tmp_path: Path) -> Member:
    """A member of a front whose artifact is two files."""
    found = StudyFront.load(toy_study(tmp_path / "study", trials=5)).pick("best")
    parted(found.artifact)
    size = Measurement(float(sum(f.stat().st_size for f in files_of(found.artifact))), unit="B")
    return replace(
        found, trial=replace(found.trial, metrics={**found.trial.metrics, "size_bytes": size})
    )


def test_a_bundle_holds_both_files_and_verifies(member: Member, tmp_path: Path) -> None:
    path = member.export(tmp_path / "bundle")
    data = path.with_name("model.onnx.data")
    recorded = json.loads((path.parent / "metrics.json").read_text())["files"]
    assert recorded == [
        {
            "name": f.name,
            "bytes": f.stat().st_size,
            "sha256": hashlib.sha256(f.read_bytes()).hexdigest(),
        }
        for f in (path, data)
    ]
    found = json.loads(CliRunner().invoke(app, ["verify", str(path), "--json"]).stdout)
    assert found["bytes"] == path.stat().st_size + data.stat().st_size
    assert found["operators"]["stored"] == {"MatMul": 2, "Relu": 1}
    data.write_bytes(b"\0" * data.stat().st_size)
    damaged = CliRunner().invoke(app, ["verify", str(path)])
    assert damaged.exit_code == 2
    assert "not the file that was measured" in damaged.output


def test_weights_of_another_size_do_not_ship(member: Member, tmp_path: Path) -> None:
    with files_of(member.artifact)[1].open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactError, match="were measured"):
        member.export(tmp_path / "bundle")


def test_what_finds_its_weights_by_name_is_not_renamed(member: Member, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be renamed") as caught:
        member.export(tmp_path / "tiny.onnx")
    assert "directory" in caught.value.hint
    assert not (tmp_path / "tiny.onnx").exists()


def test_exporting_one_file_over_two_leaves_one(member: Member, tmp_path: Path) -> None:
    member.export(tmp_path / "bundle")
    small = StudyFront.load(member.directory).pick("smallest")
    assert files_of(small.export(tmp_path / "bundle")) == [tmp_path / "bundle" / "model.onnx"]
