"""Every mistake is one message that says what to do, and bugs keep their traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cli_calls import petra, refused

from petra.testing.studies import toy_study


def shell(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "petra.cli.main", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False
    )


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        (
            "workload: digits\nobjectivs: [quality]\n",
            ["objectivs: unknown key", "did you mean 'objectives'"],
        ),
        (
            "workload: digits\nobjectives: [latncy]\n",
            ["unknown metric 'latncy'", "did you mean 'latency'"],
        ),
        ("workload: digits\nconstraints: ['size <= 3 parsecs']\n", ["not given in 'parsecs'"]),
        (
            "workload: digits\nconstraints: ['quality >= 0.9', 'quality <= 0.8']\n",
            ["no value of quality is both"],
        ),
        ("workload: digits\nbudget: {time: soon}\n", ["budget.time", "30 min"]),
        ("- a list\n", ["a study file is a mapping"]),
        ("workload: [unclosed\n", ["not valid YAML"]),
        ("seed: 1\n", ["neither workload nor model and task"]),
    ],
)
def test_a_bad_study_file_is_one_message(tmp_path: Path, yaml: str, said: list[str]) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        yaml + f"workdir: {tmp_path / 'out'}\n"
        if not yaml.startswith(("-", "workload: ["))
        else yaml
    )
    refused(petra("run", path), *said)
    assert not (tmp_path / "out").exists()


def test_a_misspelt_method_is_corrected_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text(PARTS)
    path = tmp_path / "study.yaml"
    source = f"model: parts:model\ntask: parts:task\nworkdir: {tmp_path / 'out'}\n"
    path.write_text(source + "space: {stages: {quantise.static: {}}}\n")
    refused(shell("run", path), "space.stages.quantise.static", "did you mean 'quantize.static'")
    assert not (tmp_path / "out").exists()


PARTS = """
import torch
from torch import nn
import petra

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

def task():
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
    y = (x[:, 0] > 0).long()
    return petra.classification((x[:20], y[:20]), (x[20:40], y[20:40]), (x[40:], y[40:]))
"""


def test_missing_things_are_named(tmp_path: Path) -> None:
    refused(petra("run", tmp_path / "no.yaml"), "no.yaml: no such file")
    for command in ("show", "report", "export", "resume"):
        refused(petra(command, tmp_path), "there is no study here")
        refused(petra(command, tmp_path / "nowhere"), "there is no study here")
    refused(petra("verify", tmp_path / "no.onnx"), "no such file")
    refused(petra("bench", tmp_path / "no.onnx"), "no such file")


def test_a_directory_with_something_else_in_it_is_no_study(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"not a database at all")
    refused(petra("show", tmp_path), "not a study's database")


def test_wrong_choices_are_explained(study: Path, tmp_path: Path) -> None:
    refused(petra("export", study, "--pick", "kne"), "did you mean 'knee'")
    refused(petra("export", study, "--pick", "999"), "there is no trial 999", "on the front")
    refused(
        petra("export", study, "--format", "pt2"), "was measured as .onnx", "target.runtime: torch"
    )
    refused(petra("methods", "tun"), "unknown stage 'tun'", "did you mean 'tune'")
    refused(petra("resume", study, "--trials", "many"), "--trials: got 'many'")
    refused(petra("resume", study, "--time", "soon"), "--time", "30 min")
    (tmp_path / "model.bin").write_bytes(b"x")
    refused(petra("verify", tmp_path / "model.bin"), "no runtime is known for .bin")


def test_an_empty_front_cannot_be_exported(tmp_path: Path) -> None:
    directory = toy_study(tmp_path, trials=8, constraints=("quality >= 0.999",))
    refused(petra("export", directory), "the front is empty", "violate quality >= 0.999")
    assert "The front is empty" in petra("show", directory).output


def test_mistakes_on_the_command_line_itself_exit_with_2(study: Path) -> None:
    assert petra("sho").exit_code == 2
    assert petra("show", study, "--everything").exit_code == 2
    assert petra("bench", "x.onnx", "--threads", "0").exit_code == 2


def test_a_bug_keeps_its_traceback(study: Path) -> None:
    code = (
        "import petra.report.study_front as f\n"
        "def bug(directory): raise ZeroDivisionError('boom')\n"
        "f.StudyFront.load = bug\n"
        "from petra.cli.main import app\n"
        f"app(['show', {str(study)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError: boom" in done.stderr
