"""`assert_artifact` in people's own tests, and the recipe of docs/ci.md."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_bundles import edit, flipped, reseal

from petra.core.errors import ConfigError
from petra.testing import assert_artifact
from petra.testing.studies import write_onnx

DOCUMENT = Path(__file__).parents[2] / "docs" / "ci.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)


def test_what_holds_passes(shipped: Path) -> None:
    assert_artifact(shipped)
    assert_artifact(
        shipped / "model.onnx",
        *("quality >= baseline - 0.05", "size <= 0.6 * baseline", "size <= 1 MB"),
        *("latency_ratio <= 50", "params <= baseline"),
    )


def test_a_failure_says_what_was_wanted_what_was_found_and_what_held(shipped: Path) -> None:
    with pytest.raises(AssertionError) as failure:
        assert_artifact(shipped, "quality >= 0.999", "size <= 500 B", "params >= 1", "recall >= 1")
    text = str(failure.value)
    lines = text.splitlines()
    assert lines[0] == f"{shipped} is not within its bounds:"
    assert [line.split()[0] for line in lines[1:]] == ["FAILS", "FAILS", "FAILS", "held"]
    assert re.search(r"FAILS  quality >= 0\.999: got 0\.9\d+ ± 0\.0\d+, on the test split", text)
    assert re.search(r"FAILS  size_bytes <= 500: got [\d.]+ k?B, of the files", text)
    assert "recall is not known" in text


def test_a_damaged_file_fails(bundle: Path) -> None:
    model = bundle / "model.onnx"
    whole = model.read_bytes()
    model.write_bytes(flipped(whole, 40))
    with pytest.raises(AssertionError, match="not the file that was measured"):
        assert_artifact(bundle)
    model.write_bytes(whole)
    outputs = bundle / "sample_outputs.npz"
    outputs.write_bytes((bundle / "sample_inputs.npz").read_bytes())
    reseal(bundle)
    with pytest.raises(AssertionError, match="recorded are"):
        assert_artifact(bundle)


def test_a_file_alone_is_tried_and_its_size_is_known(tmp_path: Path) -> None:
    small = write_onnx(tmp_path / "small.onnx", hidden=8)
    assert_artifact(small, "size <= 10 kB")
    with pytest.raises(AssertionError, match="quality is not known"):
        assert_artifact(small, "quality >= 0.5")
    small.write_bytes(b"no model")
    with pytest.raises(AssertionError, match="cannot load this file"):
        assert_artifact(small)
    with pytest.raises(AssertionError, match="no such file"):
        assert_artifact(tmp_path / "none.onnx")


def test_a_constraint_that_cannot_be_read_is_the_tests_own_mistake(shipped: Path) -> None:
    with pytest.raises(ConfigError, match="constraint 2"):
        assert_artifact(shipped, "size <= 1 MB", "quality is high")


@pytest.mark.slow
def test_speed_against_another_file_is_measured_here(tmp_path: Path) -> None:
    small = write_onnx(tmp_path / "s.onnx", hidden=8)
    large = write_onnx(tmp_path / "l.onnx", hidden=40_000)
    assert_artifact(
        small, "latency_ratio <= 0.9", "latency_ms <= 0.9 * baseline", "size <= baseline",
        against=large,
    )  # fmt: skip
    with pytest.raises(AssertionError, match=r"latency_ratio <= 0\.9: got .* measured here"):
        assert_artifact(large, "latency_ratio <= 0.9", against=small)


def test_another_bundle_is_the_baseline(shipped: Path, bundle: Path) -> None:
    assert_artifact(shipped, "quality >= baseline", "size <= baseline", against=bundle)
    edit(bundle / "metrics.json", lambda d: d["test"]["quality"].update(mean=1.0))
    reseal(bundle)
    with pytest.raises(AssertionError, match=r"quality >= baseline, which is 1\.0"):
        assert_artifact(shipped, "quality >= baseline", against=bundle)


def test_it_needs_neither_pytest_nor_torch_to_be_imported() -> None:
    code = (
        "import sys, petra.testing\n"
        "print([m for m in ('pytest', 'hypothesis', 'torch', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- the recipe ----------------------------------------------------------------------------------


def test_the_recipes_test_file_passes_on_a_bundle_and_fails_on_a_damaged_one(
    shipped: Path, tmp_path: Path
) -> None:
    (code,) = blocks("python")
    (tmp_path / "test_model.py").write_text(code)
    shutil.copytree(shipped, tmp_path / "model")

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_model.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    card = tmp_path / "model" / "MODEL_CARD.md"
    card.write_bytes(flipped(card.read_bytes(), 100))
    done = run()
    assert done.returncode == 1
    assert "not the file that was exported" in done.stdout


def test_the_recipes_workflow_runs_it() -> None:
    (text,) = blocks("yaml")
    steps = yaml.safe_load(text)["jobs"]["model"]["steps"]
    runs = [step["run"] for step in steps if "run" in step]
    assert any("pytest test_model.py" in run for run in runs)
    assert any("petra verify model/" in run for run in runs)
