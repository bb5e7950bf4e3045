"""Odd terminals, pipes and widths: conventional exit codes, one message, nothing that acts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import petra
from petra.testing.studies import toy_study

PETRA = f"{sys.executable} -P -m petra.cli.main"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(petra.__file__).parents[1])}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_study(tmp_path_factory.mktemp("study"), trials=6)


def shell(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        env=ENVIRONMENT | environment,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("command", ["show {} --all", "show {} --json --all", "--help"])
def test_a_reader_that_went_away_is_141(study: Path, command: str) -> None:
    done = shell(f"{PETRA} {command.format(study)} | (exec <&-; sleep 3); exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("where", [">/dev/full", ">&-"])
@pytest.mark.parametrize("command", ["show {}", "show {} --json", "--help"])
def test_output_that_cannot_be_written_is_one_message(
    study: Path, command: str, where: str
) -> None:
    done = shell(f"{PETRA} {command.format(study)} {where}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: standard output")
    assert done.stderr.count("\n") == 1


def test_closed_output_writes_nothing(study: Path, tmp_path: Path) -> None:
    shell(f"{PETRA} report {study} --out {tmp_path}/r.html >&-")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-", "<&-"])
def test_other_streams_do_not_matter(study: Path, where: str) -> None:
    assert shell(f"{PETRA} show {study} {where}").returncode == 0
    assert shell(f"{PETRA} show /nowhere {where}").returncode == 2


@pytest.mark.parametrize("columns", ["²", "0", "9" * 5000])
def test_widths_that_make_no_sense(study: Path, columns: str) -> None:
    done = shell(
        f"{PETRA} show {study} && {PETRA} --help",
        COLUMNS=columns,
        LINES=columns,
        TERMINAL_WIDTH=columns,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 1000


@pytest.mark.parametrize(
    "given",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
)
def test_encodings_without_table_characters(study: Path, given: dict[str, str]) -> None:
    done = shell(f"{PETRA} show {study} --all; {PETRA} show {study} && {PETRA} sho", **given)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.isascii()
    assert "+- " in done.stdout
    assert "->" in done.stdout


def test_what_is_typed_is_shown_escaped(study: Path) -> None:
    for words in (
        "$'a\\x1b[31mb'",
        "show $'a\\x1b[31mb'",
        "show x $'a\\x1b[31mb'",
        "show x $'--\\x1b[31mb'",
    ):
        done = shell(f"{PETRA} {words}")
        assert done.returncode == 2
        assert "\x1b" not in done.stderr
        assert "\\x1b" in done.stderr
