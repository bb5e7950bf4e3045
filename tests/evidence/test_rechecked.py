"""`petra recheck DIR`: what is as it was passes, what was altered is found, and nothing is
changed."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_bundles import digits, flipped
from typer.testing import CliRunner

import petra
from petra.cli.main import app
from petra.core.errors import ArtifactError, DataError
from petra.rechecked import UNSCORED, Recheck, recheck
from petra.report.study_front import StudyFront
from petra.store.kept_files import FILES
from petra.store.store import Store
from petra.testing.studies import toy_study


@pytest.fixture
def copied(study: Path, tmp_path: Path) -> Path:
    """A study to be spoilt."""
    return Path(shutil.copytree(study, tmp_path / "study"))


def content(directory: Path) -> dict[str, str]:
    """Of all its files but SQLite's, which come and go with whoever reads."""
    return {
        str(f.relative_to(directory)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(directory.rglob("*"))
        if f.is_file() and not f.name.endswith(("-wal", "-shm"))
    }


def smallest(directory: Path) -> tuple[int, Path]:
    member = StudyFront.load(directory).pick("smallest")
    return member.number, member.artifact


def said(found: Recheck, number: int) -> dict[str, tuple[bool, str]]:
    model = next(m for m in found.models if m.number == number)
    return {look.name: (look.moved, look.said) for look in model.looks}


def test_nothing_moved_and_nothing_is_changed(copied: Path) -> None:
    before = content(copied)
    result = CliRunner().invoke(app, ["recheck", str(copied), "--no-speed", "--json"])
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert (data["moved"], data["changed"]) == (False, {})
    assert {model["trial"] for model in data["models"]} >= {0}
    for model in data["models"]:
        looks = {look["name"]: look for look in model["looks"]}
        assert looks["files"]["said"] == "as the search left them"
        assert looks["predictions (test)"]["said"] == "the same to the last bit"
        assert looks["quality"]["said"] == "the same"
        assert looks["quality"]["now"]["mean"] == looks["quality"]["then"]["mean"]
    assert content(copied) == before


def test_an_altered_file_is_found_by_its_digest(copied: Path) -> None:
    number, file = smallest(copied)
    whole = file.read_bytes()
    file.write_bytes(flipped(whole, len(whole) // 2))
    result = CliRunner().invoke(app, ["recheck", str(copied), "--no-speed"])
    assert result.exit_code == 3, result.output
    assert "MOVED" in result.output
    with pytest.raises(ArtifactError, match="not the file that was measured"):
        StudyFront.load(copied).pick(number).export(copied.parent / "out")
    file.write_bytes(whole + b"x")
    assert said(recheck(copied, speed=False), number)["files"][0]


def test_an_altered_file_of_an_older_study_is_found_by_what_it_predicts(copied: Path) -> None:
    number, file = smallest(copied)
    with Store.open(copied, write=True) as store:
        store.set_note(FILES, {})
    model = onnx.load(file)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.int8:
            tensor.CopyFrom(numpy_helper.from_array(np.roll(values, 1), tensor.name))
    size = file.stat().st_size
    onnx.save(model, str(file))
    assert file.stat().st_size == size, "the same size, other weights"
    found = recheck(copied, picks=[number], speed=False)
    looks = said(found, number)
    assert looks["files"] == (False, "of the measured size")
    assert looks["predictions (test)"][0]
    assert looks["quality"][0]
    assert not any(look.moved for look in found.models[0].looks), "the untouched model's are not"


def test_a_metric_of_ones_own_is_scored_with_the_task(copied: Path) -> None:
    with Store.open(copied, write=True) as store:
        store.set_note("task", {"metric": "rmse", "maximize": True})
    number, _ = smallest(copied)
    unscored = said(recheck(copied, speed=False, picks=[number]), number)["quality"]
    assert unscored == (False, UNSCORED), "rmse does not give what is stored, and is not believed"
    _, task = digits()
    scored = petra.recheck(copied, speed=False, picks=[number], task=task)
    assert said(scored, number)["quality"] == (False, "the same")


def test_stored_data_that_leads_elsewhere_is_refused(copied: Path, tmp_path: Path) -> None:
    targets = copied / "data" / "val.targets.npy"
    targets.rename(tmp_path / "elsewhere.npy")
    targets.symlink_to(tmp_path / "elsewhere.npy")
    with pytest.raises(ArtifactError, match="leads out"):
        recheck(copied, speed=False)
    targets.unlink()
    targets.write_bytes(b"\x93NUMPY nonsense")
    with pytest.raises(DataError, match="is damaged"):
        recheck(copied, speed=False)
    shutil.rmtree(copied / "data")
    with pytest.raises(DataError, match="its data is gone"):
        recheck(copied, speed=False)


def test_a_study_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="its data is gone"):
        recheck(toy_study(tmp_path / "study", trials=3))


@pytest.mark.slow
def test_a_ratio_that_was_another_has_moved(copied: Path) -> None:
    number, _ = smallest(copied)
    as_it_is = said(recheck(copied, picks=[number]), number)["latency_ratio"]
    assert as_it_is[1].startswith("the 95% intervals")
    with Store.open(copied, write=True) as store:
        test = dict(store.trial(number).test)
        test["latency_ratio"] = replace(test["latency_ratio"], mean=9.0, stderr=0.01)
        store.set_test(number, test)
    assert said(recheck(copied, picks=[number]), number)["latency_ratio"] == (
        True,
        "the 95% intervals are apart",
    )
