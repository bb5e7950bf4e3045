"""petra init: what it writes runs as it is, and it writes over nothing."""

from __future__ import annotations

import importlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from cli_calls import petra, refused

from petra.cli.starter import STARTERS
from petra.config import load_config
from petra.report.record import StudyRecord

PETRA = (sys.executable, "-m", "petra.cli.main")


@pytest.mark.parametrize("kind", STARTERS)
def test_it_writes_a_study_file_that_is_read_and_a_module_that_says_what_is_yours(
    kind: str, tmp_path: Path
) -> None:
    place = tmp_path / "mine"
    result = petra("init", "--model", kind, "--dir", place, "--runtime", "openvino")
    assert result.exit_code == 0
    config = load_config(place / "study.yaml")
    assert config.model is not None
    assert config.model.call == "my_model:model"
    assert config.task is not None
    assert config.task.call == "my_model:task"
    assert config.target.runtime == "openvino"
    assert config.budget.time == 600
    assert config.workdir == f"{place}/results"
    assert list(config.constraints) == [STARTERS[kind].constraint]
    module = (place / "my_model.py").read_text()
    compile(module, "my_model.py", "exec")
    assert module.count("YOURS") >= 3
    assert f"petra run {place}/study.yaml" in result.output
    assert "petra[text]" in result.output or kind != "hf"


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=[] if k == "regression" else pytest.mark.slow) for k in STARTERS],
)
def test_the_modules_pass_the_examination_with_a_model_that_has_learnt(kind: str) -> None:
    import torch

    from petra.intake import examine
    from petra.training.loop import predict

    if kind == "hf":
        pytest.importorskip("transformers")
    module = importlib.import_module(f"petra.cli.starters.{kind}")
    examined = examine(module.model(), module.task())
    outputs, targets = predict(examined.model, examined.task.val)
    scorer = examined.task.scorers()[0]
    reached = scorer.value({"output": outputs}, targets, torch.arange(len(targets)))
    best = {"regression": 0.6, "forecast": 0.95}.get(kind, 0.75)
    assert reached <= best if examined.task.judged_by_error else reached >= best, reached


@pytest.mark.slow
@pytest.mark.timeout(660)
@pytest.mark.parametrize("kind", STARTERS)
def test_what_it_writes_runs_as_it_is(kind: str, tmp_path: Path) -> None:
    if kind == "hf":
        pytest.importorskip("transformers")
    assert petra("init", "--model", kind, "--dir", tmp_path / "mine").exit_code == 0
    command = [*PETRA, "run", str(tmp_path / "mine" / "study.yaml"), "--trials", "2", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    record = StudyRecord.load(tmp_path / "mine" / "results")
    assert len(record.trials) == 3
    assert any(t.measured for t in record.trials[1:]), [t.failure for t in record.trials]


def test_nothing_is_written_over_unless_it_is_said(tmp_path: Path) -> None:
    given = ("init", "--model", "cnn", "--dir", tmp_path)
    assert petra(*given).exit_code == 0
    module = tmp_path / "my_model.py"
    module.write_text("mine")
    refused(petra(*given), "are there already", "--force")
    (tmp_path / "study.yaml").unlink()
    refused(petra(*given), f"{module} is there already")
    assert module.read_text() == "mine"
    assert not (tmp_path / "study.yaml").exists()
    done = petra(*given, "--force", "--json")
    assert json.loads(done.output) == {
        "model": "cnn",
        "files": [str(tmp_path / "study.yaml"), str(module)],
    }
    assert module.read_text() == STARTERS["cnn"].module()


def test_mistakes_are_answered(tmp_path: Path) -> None:
    refused(petra("init"), "for what kind of model?", "give --model KIND", "forecast:")
    given = ("init", "--dir", tmp_path / "x", "--model")
    refused(petra(*given, "cn"), "unknown kind of model 'cn'", "allowed: cnn")
    refused(petra(*given, "recurent"), "did you mean 'recurrent'")
    refused(petra(*given, "cnn", "--runtime", "onnxruntim"), "did you mean 'onnxruntime'")
    refused(petra(*given, "cnn", "--time", "soon"), "init: cannot read 'soon'", "30 min")
    refused(petra("init", "--model", "cnn", "--dir", "~/x"), "write the path in full")
    refused(petra("init", "--model", "cnn", "--dir", tmp_path / "a: b"), "choose a plainer name")
    file = tmp_path / "file"
    file.touch()
    refused(petra("init", "--model", "cnn", "--dir", file), "is a file")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def answered(keys: bytes, place: Path) -> subprocess.CompletedProcess[str]:
    """`petra init` on a terminal where somebody types `keys`."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [*PETRA, "init"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=place,
    )
    os.close(theirs)
    os.write(ours, keys)
    output, errors = running.communicate(timeout=60)
    os.close(ours)
    return subprocess.CompletedProcess(PETRA, running.returncode, output, errors)


def test_on_a_terminal_it_asks(tmp_path: Path) -> None:
    """By number, the directory by name, and all else left at what is offered."""
    done = answered(b"6\nload\n\n\n", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Kind of model" in done.stderr
    assert "petra run load/study.yaml" in done.stdout
    assert (tmp_path / "load" / "my_model.py").read_text() == STARTERS["forecast"].module()
    assert load_config(tmp_path / "load" / "study.yaml").target.runtime == "onnxruntime"


def test_the_end_of_the_input_writes_nothing(tmp_path: Path) -> None:
    done = answered(b"6\n\x04", tmp_path)
    assert done.returncode == 130, done.stderr
    assert "nothing is written" in done.stderr
    assert not list(tmp_path.iterdir())
