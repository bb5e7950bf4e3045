"""A real study from the command line: run a file, interrupt, resume from elsewhere, take a model
out and check it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import petra
from petra.report.study_front import StudyFront

PARTS = """
import torch
from sklearn.datasets import load_digits
from torch import nn
import petra

def model(width):
    torch.manual_seed(0)
    hidden = [nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(width, 10))

def task():
    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    parts = (slice(600), slice(600, 900), slice(900, 1200))
    return petra.classification(*((x[part], y[part]) for part in parts))
"""
STUDY = """
model: {call: "parts_of_study:model", args: {width: 96}}
task: parts_of_study:task
objectives: [quality, size]
space:
  stages: {tune: {epochs: [1, 3]}, quantize.static: {samples: [128], exclude: none}}
  max_length: 2
budget: {time: 20 min}
"""
PETRA = (sys.executable, "-m", "petra.cli.main")
# Also from another directory.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(petra.__file__).parents[1])}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*PETRA, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd="/", env=ENVIRONMENT, timeout=200, check=False
    )


@pytest.fixture(scope="module")
def interrupted(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A study stopped by Ctrl-C after its first trial."""
    place = tmp_path_factory.mktemp("project")
    (place / "parts_of_study.py").write_text(PARTS)
    (place / "study.yaml").write_text(STUDY)
    directory = place / "out"
    command = [*PETRA, "run", str(place / "study.yaml"), "--workdir", str(directory)]
    log = place / "log"
    with log.open("w") as stderr:
        running = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd="/", env=ENVIRONMENT
        )
        deadline = time.monotonic() + 120
        while (
            "trial 1:" not in log.read_text()
            and running.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.2)
        running.send_signal(signal.SIGINT)
        output, _ = running.communicate(timeout=60)
    done = subprocess.CompletedProcess(command, running.returncode, output, log.read_text())
    return directory, done


@pytest.fixture(scope="module")
def resumed(
    interrupted: tuple[Path, subprocess.CompletedProcess[str]],
) -> tuple[Path, dict[str, object]]:
    directory, _ = interrupted
    kept = sum(t.number > 0 for t in StudyFront.load(directory).trials)
    done = run("resume", str(directory), "--trials", str(kept + 1), "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    return directory, json.loads(done.stdout)


def test_ctrl_c_keeps_what_finished_and_says_how_to_go_on(
    interrupted: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    directory, done = interrupted
    assert done.returncode == 130, done.stderr
    kept = sum(t.number > 0 for t in StudyFront.load(directory).trials)
    assert kept >= 1
    assert f"{kept} finished trials are kept" in done.stderr
    assert f"petra resume {directory}" in done.stderr
    assert "untouched model: accuracy" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
def test_resume_finds_the_modules_and_goes_on(resumed: tuple[Path, dict[str, object]]) -> None:
    directory, data = resumed
    assert data["stop_reason"] == f"the budget of {sum(data['trials'].values())} trials is spent"
    assert data["front"]
    assert all(member["test"] for member in data["front"])  # type: ignore[attr-defined]
    assert (directory / "report.html").is_file()
    again = run("resume", str(directory))
    assert again.returncode == 0
    assert "finished: the budget of" in again.stderr


@pytest.mark.slow
def test_a_real_export_verifies(resumed: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    directory, _ = resumed
    path = tmp_path / "model.onnx"
    assert run("export", str(directory), "--pick", "smallest", "--to", str(path)).returncode == 0
    found = json.loads(run("verify", str(path), "--json").stdout)
    assert found["inputs"] == [
        {"name": "input", "dtype": "float32", "shape": [None, 64], "names": ["batch", ""]}
    ]
    assert found["bundle"].startswith("the file that model.metrics.json describes; all ")
    member = StudyFront.load(directory).pick("smallest")
    assert found["bytes"] == member.trial.metrics["size_bytes"].mean
    if member.trial.pipeline.stages[-1].kind == "quantize.static":
        assert found["operators"]["compute"] == 3
        assert found["operators"]["integer"] == len(member.trial.trace[-1].touched)
