"""What a shell is told when somebody presses Tab."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from petra.cli import completion
from petra.front import PICKS

PETRA = "import sys; sys.argv[0] = 'petra'; from petra.cli.main import main; main()"


def completed(line: str) -> list[str]:
    """What bash is offered for the last word of a line."""
    words = line.split(" ")
    asked = {
        "_PETRA_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", PETRA],
        capture_output=True,
        text=True,
        env=os.environ | asked,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("petra comp", ["compare"]),
        ("petra methods prune.s", ["prune.structured"]),
        ("petra export runs/first --pick ", sorted(PICKS)),
        ("petra run --workload ucr/Gun", ["ucr/GunPoint", "ucr/GunPoint/lstm_fcn"]),
    ],
)
def test_a_shell_completes(line: str, offered: list[str]) -> None:
    assert sorted(completed(line)) == offered


def test_names_are_those_that_begin_so() -> None:
    assert completion.stage_names("pr")[0] == "prune"
    assert "tune" in completion.stage_names("")
    assert completion.runtime_names("onnxruntime,op") == ["onnxruntime,openvino"]
    assert completion.starter_names("c") == ["cnn"]
    assert completion.workload_names("nothing like it") == []


def test_completing_loads_no_torch() -> None:
    code = (
        "import sys; from petra.cli import completion as c; c.stage_names(''); c.pick_names('');"
        " c.workload_names(''); c.runtime_names(''); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_script_for_a_shell_is_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PETRA],
        capture_output=True,
        text=True,
        env=os.environ | {"_PETRA_COMPLETE": "source_bash"},
        check=True,
    )
    assert "complete" in done.stdout
    assert "_PETRA_COMPLETE=complete_bash" in done.stdout
