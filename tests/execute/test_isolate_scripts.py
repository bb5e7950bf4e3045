"""Workers of scripts run as users run them, and the guard that ends what scripts leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from worker_calls import gone

import petra.workers.isolate

SOURCE = str(Path(petra.workers.isolate.__file__).parents[2])
SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
from petra.workers.isolate import Worker

print("top", flush=True)  # must appear once: the worker does not run the script

class Model:
    def __init__(self, scale):
        self.scale = scale
    def __call__(self, x):
        return self.scale * x

def work(model, note, x):
    note(os.getpid())
    return model(x)

def sleep(model, note):
    note(os.getpid())
    time.sleep(1000)

worker = Worker(Path(sys.argv[1]), threads=1)
worker.start(Model(3))
print(json.dumps(worker.call(work, 14)), flush=True)
if sys.argv[2] == "hold the interpreter":
    def sleep(model, note):
        import ctypes
        note(os.getpid())
        ctypes.PyDLL(None).sleep(1000)
if sys.argv[2] == "with children":
    def sleep(model, note):
        import ctypes, subprocess
        note(os.getpid())
        note(subprocess.Popen(["sleep", "1000"]).pid)
        ctypes.PyDLL(None).sleep(1000)
if sys.argv[2] in ("hang", "hold the interpreter", "with children"):
    worker.call(sleep, on_note=lambda pid: print(pid, flush=True))
if sys.argv[2] == "interrupt":
    try:
        worker.call(sleep, on_note=lambda pid: print(pid, flush=True))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def run_script(tmp_path: Path, mode: str) -> subprocess.Popen[str]:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [SOURCE, os.environ.get("PYTHONPATH", "")])),
    }
    command = [sys.executable, str(path), str(tmp_path / "log"), mode]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


def test_a_script_without_main_guard(tmp_path: Path) -> None:
    out, err = run_script(tmp_path, "end").communicate(timeout=60)
    assert out.splitlines() == ["top", "42"], err
    assert not err, "and nothing is left to complain about at exit"


@pytest.mark.parametrize("mode", ["hang", "hold the interpreter"])
def test_the_worker_dies_with_its_parent(tmp_path: Path, mode: str) -> None:
    script = run_script(tmp_path, mode)
    assert script.stdout
    lines = [script.stdout.readline() for _ in range(3)]
    pid = json.loads(lines[2])
    assert psutil.pid_exists(pid)
    script.kill()
    script.communicate()
    assert gone(pid)


def test_what_the_worker_started_dies_with_the_parent_too(tmp_path: Path) -> None:
    script = run_script(tmp_path, "with children")
    assert script.stdout
    lines = [script.stdout.readline() for _ in range(4)]
    script.kill()
    script.communicate()
    assert all(gone(json.loads(line)) for line in lines[2:])


def test_ctrl_c_is_for_the_parent(tmp_path: Path) -> None:
    script = run_script(tmp_path, "interrupt")
    assert script.stdout
    pid = json.loads([script.stdout.readline() for _ in range(3)][2])
    os.kill(pid, signal.SIGINT)
    time.sleep(0.3)
    assert psutil.pid_exists(pid), "ignored there"
    script.send_signal(signal.SIGINT)
    out, _ = script.communicate(timeout=60)
    assert out == "interrupted\n"
    assert gone(pid)


def test_the_guard_ends_groups_it_was_not_told_to_forget(tmp_path: Path) -> None:
    sleepers = [subprocess.Popen(["sleep", "100"], start_new_session=True) for _ in range(2)]
    guard = [
        sys.executable,
        "-I",
        "-S",
        str(Path(petra.workers.isolate.__file__).with_name("guard_main.py")),
    ]
    told = "".join(f"+{sleeper.pid}\n" for sleeper in sleepers) + f"-{sleepers[1].pid}\n"
    subprocess.run(guard, input=told.encode(), check=True, timeout=30)
    try:
        assert sleepers[0].wait(20) == -signal.SIGKILL
        assert sleepers[1].poll() is None
    finally:
        sleepers[1].kill()
        sleepers[1].wait()
