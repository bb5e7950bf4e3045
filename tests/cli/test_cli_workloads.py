"""petra workloads, and petra run without a study file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_calls import petra, refused

from petra.report.record import StudyRecord
from petra.workloads.table import PROBLEMS


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PETRA_DATA", str(tmp_path))
    monkeypatch.setenv("PETRA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "ucr").mkdir()
    (tmp_path / "ucr" / "GunPoint.npz").touch()
    return tmp_path


def test_the_list_says_what_is_found_and_missing(root: Path) -> None:
    result = petra("workloads")
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.output.splitlines() if line.strip()}
    assert {w.name for w in PROBLEMS} <= set(lines)
    assert " found " in lines["ucr/GunPoint"]
    assert " missing " in lines["ucr/Wafer"]
    assert str(root) in result.output


def test_the_list_as_json(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = json.loads(petra("workloads", "--json").output)
    assert data["data"] == str(root.resolve())
    known = {one["name"]: one for one in data["workloads"]}
    assert known["ucr/GunPoint"]["files"] == [{"path": "ucr/GunPoint.npz", "found": True}]
    assert known["etth1"]["files"] == [{"path": "forecasting/ETTh1.csv.gz", "found": False}]
    assert known["etth1"]["published"]["low"] < known["etth1"]["published"]["high"]
    assert known["etth1"]["reached"] is None
    monkeypatch.setenv("PETRA_DATA", str(root / "nowhere"))
    assert json.loads(petra("workloads", "--json").output)["data"] is None
    assert "no directory at" in petra("workloads").output


def test_one_in_full(root: Path) -> None:
    text = petra("workloads", "ucr/GunPoint").output
    assert "Ismail Fawaz" in text
    assert "ucr/GunPoint.npz (found)" in text
    assert "arguments: name='GunPoint', network='inception_time'," in " ".join(text.split())
    assert json.loads(petra("workloads", "ucr/GunPoint", "--json").output)["metric"] == "accuracy"
    refused(petra("workloads", "ucr/Gunpoint"), "did you mean 'ucr/GunPoint'")


def test_what_to_run_is_given_once(tmp_path: Path) -> None:
    refused(petra("run"), "neither a study file nor a workload", "petra run --workload digits")
    file = tmp_path / "study.yaml"
    file.write_text("workload: digits\n")
    refused(petra("run", file, "--workload", "digits"), "and a workload besides")
    refused(petra("run", file, "--workload-arg", "width=8"), "and a workload besides")
    refused(petra("run", "--workload", "digit"), "unknown workload", "did you mean 'digits'")


def test_arguments_and_options_are_checked_as_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = ("run", "--workload", "digits")
    refused(petra(*run, "--workload-arg", "width"), "--workload-arg: got 'width'", "key=value")
    refused(petra(*run, "--workload-arg", "width=[1"), "--workload-arg width: not valid YAML")
    refused(petra(*run, "--workload-arg", "widht=8"), "workload.args", "width: 'int'")
    twice = ("--workload-arg", "width=8", "--workload-arg", "width=9")
    refused(petra(*run, *twice), "--workload-arg width: given twice")
    refused(petra(*run, "--workload-arg", "width=8\nvalue: 9"), "'value' is given twice")
    refused(petra(*run, "--time", "soon"), "budget.time", "30 min")
    assert not [*tmp_path.iterdir()], "nothing is written before all is right"


@pytest.mark.slow
def test_a_workload_is_run_and_resumed_without_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ("--workload-arg", "width=4", "--workload-arg", "epochs=1")
    result = petra("run", "--workload", "digits", *small, "--trials", "1", "--quiet")
    assert result.exit_code == 0, result.output
    record = StudyRecord.load(tmp_path / "runs" / "digits")
    assert record.config.workload is not None
    assert record.config.workload.args == {"width": 4, "epochs": 1}
    again = petra("resume", tmp_path / "runs" / "digits", "--trials", "+1", "--quiet")
    assert again.exit_code == 0, again.output
    assert len(StudyRecord.load(tmp_path / "runs" / "digits").trials) == 3
