"""petra show --watch in a terminal and in a pipe, and petra watch as a process."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cli_calls import petra, refused
from rich.console import Console

from petra.cli.watch import seconds_between, view
from petra.core.errors import ConfigError
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import GIVEN, Proposal
from petra.store.store import Store
from petra.testing.studies import toy_study
from petra.watch.look import Watched

COMMAND = [sys.executable, "-m", "petra.cli.main"]


def grow(store: Store, number: int, share: float) -> None:
    """One more trial, with that share of the untouched model's bytes."""
    first = store.trial(0)
    pipeline = Pipeline((StageSpec("tune", {"epochs": number}),))
    size = first.metrics["size_bytes"]
    metrics = {**first.metrics, "size_bytes": replace(size, mean=share * size.mean)}
    store.propose(Proposal(number, pipeline))
    ended = {"origin": GIVEN, "metrics": metrics, "test": {}, "finished_at": 1000.0}
    store.add(replace(first, number=number, pipeline=pipeline, **ended))  # type: ignore[arg-type]


# ---- show --watch --------------------------------------------------------------------------------


def test_a_finished_study_is_shown_and_that_is_all(study: Path) -> None:
    lines = petra("show", study, "--watch").output.splitlines()
    assert lines[0] == "finished: the budget of 25 trials is spent"
    assert "complete" in lines[1]
    assert lines[2].startswith("on the front: ")
    assert len(lines) == 3


def test_what_does_not_go_together_is_refused(study: Path, tmp_path: Path) -> None:
    refused(petra("show", study, "--watch", "--json"), "--watch shows the front alone")
    refused(petra("show", study, "--watch", "--every", "never"), "--every: cannot read")
    refused(petra("show", study, "--watch", "--every", "0"), "half a second to an hour")
    refused(petra("show", tmp_path, "--watch"), "there is no study here")
    refused(petra("watch", tmp_path), "there is no study here")


def test_intervals_are_durations() -> None:
    assert [seconds_between(text) for text in ("5s", "0.5", "2 min")] == [5.0, 0.5, 120.0]
    with pytest.raises(ConfigError, match="--every"):
        seconds_between("2 days")


def test_in_a_pipe_every_change_is_a_line(tmp_path: Path) -> None:
    toy_study(tmp_path, trials=4)
    command = [*COMMAND, "show", str(tmp_path), "--watch", "--every", "0.5"]
    store = Store.open(tmp_path, write=True)
    store.set_note("stop_reason", "")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = [process.stdout.readline().strip() for _ in range(3)]
        assert first[0] == "alive: over its budget"
        assert "complete" in first[1]
        assert first[2].startswith("on the front: ")
        grow(store, 5, 0.01)
        line = next(said for said in process.stdout if not said.startswith("alive: "))
        assert line.startswith("trial 5: complete, accuracy ")
        assert process.stdout.readline().startswith("on the front: 5")
        store.close()
        assert process.stdout.readline().startswith("not alive: continue with petra resume ")
        with Store.open(tmp_path, write=True) as again:
            again.set_note("stop_reason", "enough")
        rest = process.stdout.read().splitlines()
        assert rest[-1] == "finished: enough"
    assert process.returncode == 0


@contextlib.contextmanager
def in_a_terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "60"}
    with subprocess.Popen([*COMMAND, *arguments], stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        try:
            yield process, ours
        finally:
            if process.poll() is None:
                process.kill()
            os.close(ours)


def read_until(terminal: int, text: str, seconds: float = 60) -> str:
    """What comes until `text` has come, or the end."""
    found, until = "", time.monotonic() + seconds
    while text not in found and time.monotonic() < until:
        if not select.select([terminal], [], [], 0.2)[0]:
            continue
        try:
            found += os.read(terminal, 65536).decode()
        except OSError:  # the other end is closed
            break
    return found


def test_ctrl_c_leaves_the_last_state_on_the_screen(tmp_path: Path) -> None:
    toy_study(tmp_path, trials=4)
    with Store.open(tmp_path, write=True) as store:
        store.set_note("stop_reason", "")
        arguments = ("show", str(tmp_path), "--watch", "--every", "0.5")
        with in_a_terminal(*arguments) as (process, terminal):
            assert "alive: " in read_until(terminal, "0 is the untouched model")
            grow(store, 5, 0.01)
            read_until(terminal, "trial 5: complete")
            process.send_signal(signal.SIGINT)
            left = read_until(terminal, "\0", 5)
            assert process.wait(timeout=30) == 0
    assert "Traceback" not in left
    assert "tune (epochs 5)" in left, "the last state is printed once more and stays"
    assert left.endswith("\n") or "\x1b[?25h" in left


@pytest.mark.parametrize("width", [40, 100])
def test_the_view_fits_its_width(tmp_path: Path, width: int) -> None:
    toy_study(tmp_path, trials=20, constraints=["size <= 300 kB"])
    with Store.open(tmp_path, write=True) as store:
        store.propose(Proposal(21, Pipeline((StageSpec("tune", {"epochs": 99}),))))
        look = Watched(tmp_path).look()
    screen = Console(width=width, color_system=None, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    screen.print(view(look, width=width))
    lines = screen.export_text().splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.startswith("  trial 21: waiting or under way") for line in lines)
    assert any(re.match(r"  trial \d+: (complete|infeasible|failed), ", line) for line in lines)


# ---- watch ---------------------------------------------------------------------------------------


def test_the_page_is_served_until_ctrl_c(tmp_path: Path) -> None:
    toy_study(tmp_path, trials=4)
    before = {p.name for p in tmp_path.iterdir()}
    command = [*COMMAND, "watch", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.fullmatch(rf"watching {tmp_path} at (http://127\.0\.0\.1:\d+/)\n", line)
        assert found
        with urllib.request.urlopen(f"{found[1]}now", timeout=10) as answer:
            now = json.load(answer)
        process.send_signal(signal.SIGINT)
        assert "stopped watching" in process.stderr.read()
    assert process.returncode == 0
    assert now["state"] == "finished"
    log = {"study.db-wal", "study.db-shm"}  # which SQLite makes for any reader
    assert {p.name for p in tmp_path.iterdir()} - log == before


def test_the_commands_of_the_documentation_exist() -> None:
    text = (Path(__file__).parents[2] / "docs" / "watching.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    commands = re.findall(r"petra (show|watch) runs/first([^|\n]*)", "".join(blocks))
    assert len(commands) == 6
    for command, options in commands:
        known = petra(command, "--help").output
        assert all(option in known for option in re.findall(r"--\w+", options))


def test_help_says_that_it_is_for_this_machine_alone() -> None:
    said = petra("watch", "--help").output
    assert "this machine only" in " ".join(said.split())
    assert "petra watch petra-demo" in said
    assert " watch " in petra("--help").output
