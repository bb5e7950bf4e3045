"""petra bench: files across runtimes, and a study's model built again for each of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import petra
from petra.cli.main import app
from petra.runtimes.openvino import OpenVino
from petra.runtimes.torch_eager import lacks_cuda
from petra.testing.studies import toy_study, write_onnx

PARTS = """
import torch
from sklearn.datasets import load_digits
from torch import nn
import petra

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

def task():
    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    parts = (slice(300), slice(300, 500), slice(500, 700))
    train, val, test = ((x[part], y[part]) for part in parts)
    return petra.classification(train, val, test)
"""
STUDY = """
model: parts_of_bench:model
task: parts_of_bench:task
objectives: [quality, size]
space: {stages: {tune: {epochs: 2}}, max_length: 1}
budget: {trials: 1}
"""
needs_openvino = pytest.mark.skipif(not OpenVino().version(), reason="openvino is not installed")


def bench(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["bench", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.slow
@needs_openvino
def test_one_file_on_two_runtimes(tmp_path: Path) -> None:
    file = write_onnx(tmp_path / "m.onnx", hidden=64)
    data = json.loads(
        bench(file, "--runtime", "onnxruntime,openvino", "--throughput-batch", 4, "--json").stdout
    )
    found = data["files"][str(file)]
    assert list(found) == ["onnxruntime", "openvino"]
    # With itself.
    assert found["onnxruntime"]["latency_ratio"]["mean"] == pytest.approx(1, abs=0.25)
    assert found["openvino"]["latency_ratio"]["mean"] > 0
    assert found["openvino"]["size_bytes"]["mean"] == file.stat().st_size


@needs_openvino
def test_both_files_of_openvino_s_format_count(tmp_path: Path) -> None:
    import openvino

    source = openvino.Core().read_model(write_onnx(tmp_path / "m.onnx", hidden=64))
    openvino.save_model(source, tmp_path / "m.xml")
    result = bench(tmp_path / "m.xml", "--throughput-batch", 4, "--json")
    metrics = json.loads(result.stdout)["files"][str(tmp_path / "m.xml")]
    assert metrics["size_bytes"]["mean"] == sum(
        (tmp_path / f"m.{kind}").stat().st_size for kind in ("xml", "bin")
    )
    assert "latency_ratio" not in metrics


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{file}", "--runtime", "onnxruntim"], "did you mean 'onnxruntime'"),
        (["{study}", "{file}"], "a study's directory is measured alone"),
        (["{study}", "--against", "{file}"], "a study's directory is measured alone"),
        (["{study}", "--pick", "kne"], "did you mean 'knee'"),
        (["{empty}"], "there is no study here"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "empty").mkdir()
    places = {
        "file": write_onnx(tmp_path / "m.onnx", hidden=8),
        "study": toy_study(tmp_path / "study", trials=3),
        "empty": tmp_path / "empty",
    }
    result = bench(*(argument.format(**places) for argument in arguments))
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.slow
def test_a_study_s_model_is_built_again_for_every_runtime(tmp_path: Path) -> None:
    (tmp_path / "parts_of_bench.py").write_text(PARTS)
    (tmp_path / "study.yaml").write_text(STUDY)
    directory = tmp_path / "out"
    environment = os.environ | {"PYTHONPATH": str(Path(petra.__file__).parents[1])}

    def run(*arguments: object) -> str:
        command = [sys.executable, "-m", "petra.cli.main", *map(str, arguments)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd="/",
            env=environment,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("run", tmp_path / "study.yaml", "--workdir", directory, "--quiet", "--json")
    runtimes = "onnxruntime,torch,torch.cuda"
    data = json.loads(
        run("bench", directory, "--pick", "best", "--runtimes", runtimes, "--batch", 2, "--json")
    )
    assert data["batch"] == 2
    found = data["runtimes"]
    assert list(found) == runtimes.split(",")
    onnx, torch = found["onnxruntime"], found["torch"]
    assert onnx["metrics"]["quality"]["mean"] == torch["metrics"]["quality"]["mean"]
    assert torch["parity"]["relative_error"] < 1e-5
    assert torch["metrics"]["latency_ratio"]["mean"] > 1
    assert Path(torch["files"][0]).stat().st_size == torch["metrics"]["size_bytes"]["mean"]
    # The file is the measured one, byte for byte: what was built again is what the study judged.
    measured = directory / "artifacts" / f"{data['trial']:05d}" / "model.onnx"
    assert Path(onnx["files"][0]).read_bytes() == measured.read_bytes()
    if lacks_cuda():
        assert "CUDA" in found["torch.cuda"]["failure"]
