"""What the measuring process imports: nothing from the directory that it is run in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from installed import SOURCE, bundle, console


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "model.onnx"),
        ("show", "study"),
        ("export", "study"),
        *(
            pytest.param(arguments, marks=pytest.mark.slow)
            for arguments in (
                ("bench", "model.onnx", "--throughput-batch", "2"),
                ("verify", "model.onnx", "--runtime", "openvino"),
                ("doctor",),
                ("report", "study"),
                ("verify", "model.pt2"),
            )
        ),
    ],
)
def test_no_command_imports_from_the_working_directory(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    place = tmp_path / "bundle"
    canary = bundle(place)
    if "study" in arguments:
        from petra.testing.studies import toy_study

        toy_study(place / "study", trials=5)
    if "model.pt2" in arguments:
        (place / "model.pt2").write_bytes(b"no archive")
    running = console(place, *arguments)
    _, err = running.communicate(timeout=200)
    assert not canary.exists(), canary.read_text()
    assert running.returncode == (2 if "model.pt2" in arguments else 0), err


def test_nor_do_interpreters_that_libraries_start(tmp_path: Path) -> None:
    """As torch does to find out what its compiler can do."""
    place = tmp_path / "bundle"
    canary = bundle(place)
    code = """
import os, subprocess, sys
from petra.measure.client import alone

def start():
    command = [sys.executable, "-c", "import ctypes, multiprocessing.resource_tracker"]
    return subprocess.run(command).returncode

os.chdir(sys.argv[1])
print(alone(start, artifact="", runtimes=(), threads=1)[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(place)],
        env=os.environ | {"PYTHONPATH": SOURCE},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert not canary.exists(), canary.read_text()
    assert done.stdout == "0\n", done.stderr


@pytest.mark.parametrize("path", ["", "{source}::", "{source}:.", "{source}:{place}"])
def test_a_program_that_stands_there_does_not_measure_from_there(tmp_path: Path, path: str) -> None:
    """A notebook itself imports from its directory; the process that tries a file does not."""
    place = tmp_path / "bundle"
    canary = bundle(place)
    code = """
import os, sys
from pathlib import Path
import petra.measure.client, petra.measure.inspect_main, petra.report.bundle
from petra.cli.artifact import inspect_file

place, os.environ["PYTHONPATH"] = sys.argv[1:]
os.chdir(place)
sys.path.insert(0, "")
print(inspect_file(Path("model.onnx"), None)["torch_loaded"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(place), path.format(source=SOURCE, place=place)],
        env=os.environ | {"PYTHONPATH": SOURCE},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert not canary.exists(), canary.read_text()
    assert done.stdout == "False\n", done.stderr
