"""What leaves a study is the measured file, with all that is known of it, and nothing else."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from petra.core.errors import ArtifactError, ConfigError
from petra.core.pipeline import Pipeline
from petra.report.recorded import companion
from petra.report.study_front import StudyFront
from petra.testing.studies import toy_study

BUNDLE = {
    *("model.onnx", "pipeline.yaml", "metrics.json", "parity.json", "evidence.json"),
    *("MODEL_CARD.md", "SHA256SUMS"),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_study(tmp_path_factory.mktemp("study"), trials=25)


def test_a_directory_receives_the_whole_bundle(study: Path, tmp_path: Path) -> None:
    member = StudyFront.load(study).pick("knee")
    path = member.export(tmp_path / "new" / "bundle")
    assert path == tmp_path / "new" / "bundle" / "model.onnx"
    assert {f.name for f in path.parent.iterdir()} == BUNDLE
    assert path.read_bytes() == member.artifact.read_bytes()
    stored = Pipeline.from_list(yaml.safe_load((path.parent / "pipeline.yaml").read_text()))
    assert stored.key == member.trial.pipeline.key
    metrics = json.loads((path.parent / "metrics.json").read_text())
    (file,) = metrics["files"]
    assert file == {
        "name": "model.onnx",
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert metrics["validation"]["quality"]["mean"] == member.trial.metrics["quality"].mean
    assert metrics["test"]["quality"]["stderr"] == member.trial.test["quality"].stderr
    assert metrics["baseline"]["test"]["quality"]["n"] == 1000
    assert metrics["inputs"] == [{"name": "input", "dtype": "float32", "shape": [None, 8]}]
    assert json.loads((path.parent / "parity.json").read_text())["relative_error"] == 2e-6


def test_a_file_has_its_companions_beside_it(study: Path, tmp_path: Path) -> None:
    path = StudyFront.load(study).pick("smallest").export(str(tmp_path / "tiny.onnx"))
    names = {f.name for f in tmp_path.iterdir()}
    assert names == {"tiny.onnx", *(f"tiny.{name}" for name in BUNDLE - {"model.onnx"})}
    assert companion(path, "metrics.json") == tmp_path / "tiny.metrics.json"
    assert (
        json.loads((tmp_path / "tiny.metrics.json").read_text())["files"][0]["name"] == "tiny.onnx"
    )


def test_a_trailing_slash_or_an_existing_directory_is_a_directory(
    study: Path, tmp_path: Path
) -> None:
    member = StudyFront.load(study).pick("best")
    assert member.export(f"{tmp_path}/v1.onnx/") == tmp_path / "v1.onnx" / "model.onnx"
    assert member.export(tmp_path) == tmp_path / "model.onnx"


def test_exporting_again_replaces(study: Path, tmp_path: Path) -> None:
    front = StudyFront.load(study)
    front.pick("best").export(tmp_path)
    path = front.pick("smallest").export(tmp_path)
    assert path.read_bytes() == front.pick("smallest").artifact.read_bytes()
    assert {f.name for f in tmp_path.iterdir()} == BUNDLE


@pytest.mark.parametrize(
    ("path", "format", "said"),
    [
        ("model.pt2", None, "was measured as .onnx, not as .pt2"),
        ("model.onnx", "pt2", "was measured as .onnx, not as .pt2"),
        ("bundle/", "PT2", "was measured as .onnx, not as .pt2"),
        ("model.onxx", None, "unknown format 'onxx'"),
        ("bundle/", "gguf", "unknown format 'gguf'"),
    ],
)
def test_only_measured_formats_ship(
    study: Path, tmp_path: Path, path: str, format: str | None, said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as error:
        StudyFront.load(study).pick("best").export(f"{tmp_path}/{path}", format)
    assert error.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["onnx", ".onnx", "ONNX"])
def test_the_measured_format_may_be_named(study: Path, tmp_path: Path, format: str) -> None:
    assert StudyFront.load(study).pick("best").export(tmp_path, format).is_file()


def test_files_changed_after_the_study_do_not_ship(tmp_path: Path) -> None:
    member = StudyFront.load(toy_study(tmp_path / "study", trials=5)).pick("best")
    member.artifact.write_bytes(member.artifact.read_bytes() + b"x")
    with pytest.raises(ArtifactError, match="were measured"):
        member.export(tmp_path / "out")
    member.artifact.unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        member.export(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unwritable_place_is_a_message(study: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        StudyFront.load(study).pick("best").export(tmp_path / "file" / "model.onnx")


def test_the_card_says_what_got_worse_and_how_to_run(study: Path, tmp_path: Path) -> None:
    front = StudyFront.load(study)
    smallest = front.pick("smallest")
    path = smallest.export(tmp_path)
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert front.baseline is not None
    lost = smallest.trial.test["quality"].mean - front.baseline.test["quality"].mean
    assert lost < 0
    worse = card.partition("## What is worse")[2].partition("##")[0]
    assert f"accuracy on test (1000 items): {lost:+.3f} ± 0.011" in worse
    assert "size" not in worse
    snippet = card.partition("```python\n")[2].partition("\n```")[0]
    assert len([line for line in snippet.splitlines() if line]) <= 9
    code = f"{snippet}\nprint(outputs[0].shape, 'torch' in __import__('sys').modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=path.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(1, 3) False"
