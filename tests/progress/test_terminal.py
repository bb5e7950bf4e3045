"""A study from Python, as it is seen on a real terminal, in a pipe, and not at all."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

import petra

SCRIPT = Path(__file__).with_name("runs_a_study.py")
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(Path(petra.__file__).parents[1]),
    "TERM": "xterm-256color",
    "COLUMNS": "120",
}
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(SCRIPT), *map(str, arguments)]


def on_a_terminal(*arguments: object) -> str:
    """All that the script writes to a pseudo-terminal, which is its standard output and error."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        command(*arguments), stdin=theirs, stdout=theirs, stderr=theirs, env=ENVIRONMENT
    )
    os.close(theirs)
    found = b""
    while select.select([ours], [], [], 120)[0]:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # the script has ended
            break
        if not part:
            break
        found += part
    os.close(ours)
    assert running.wait(60) == 0, found.decode(errors="replace")
    return found.decode()


def test_a_terminal_shows_a_bar_and_keeps_a_line_for_every_trial(tmp_path: Path) -> None:
    raw = on_a_terminal(tmp_path / "study")
    text = _CONTROL.sub("", raw)
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    for number in range(1, 9):
        assert any(line.startswith(f"trial {number}: ") for line in lines), number
    for phase in ("examining model and data", "searching", "confirming"):
        assert any(line.startswith(phase) and "━" in line for line in lines), phase
    assert "\x1b[?25l" in raw, "a block that is redrawn hides the cursor"
    assert raw.rindex("\x1b[?25h") > raw.rindex("\x1b[?25l"), "and gives it back"
    assert "100%" not in text
    assert any("stopped: the budget of 8 trials is spent" in line for line in lines)
    assert any(line.startswith(("front: ", "The front is empty: ")) for line in lines)
    assert lines[-1] == "it is over"
    assert "Failed to load" not in text
    assert "KernelPreference" not in text


@pytest.mark.slow
def test_a_pipe_has_lines_and_standard_output_stays_clean(tmp_path: Path) -> None:
    place = tmp_path / "study"
    done = subprocess.run(
        command(place), capture_output=True, text=True, env=ENVIRONMENT, timeout=200, check=True
    )
    assert done.stdout == "it is over\n"
    assert "\x1b" not in done.stderr
    assert "Failed to load" not in done.stderr
    lines = done.stderr.splitlines()
    said = [line for line in lines if not line.startswith("note: load is")]
    assert said[0] == "examining model and data"
    trials = [line for line in lines if re.match(r" *\d+% trial \d+: ", line)]
    assert len(trials) == 8
    quiet = subprocess.run(
        command(place, "quiet"), capture_output=True, text=True, env=ENVIRONMENT, check=True
    )
    assert (quiet.stdout, quiet.stderr) == ("it is over\n", "")
