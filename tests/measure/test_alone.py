"""The measuring process: what it may use, when it ends, and whose runtimes it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import foreign
import numpy as np
import psutil
import pytest
from installed import console

from petra.core.errors import ArtifactError
from petra.core.target import Target
from petra.measure.bench_main import Request
from petra.measure.client import BenchDied, alone, run_bench
from petra.measure.inspect_main import InspectRequest, inspect
from petra.measure.stored import load_arrays
from petra.runtimes.base import Arrays, LoadedModel
from petra.runtimes.onnxruntime import LoadedOnnx, OnnxRuntime
from petra.runtimes.table import RUNTIMES
from petra.testing.studies import write_onnx
from petra.workers.failures import MemoryLimitExceeded, TimeLimitExceeded


def run_to_the_end(artifact: Path, **limits: float) -> None:
    request = InspectRequest(Target(), str(artifact))
    alone(inspect, request, artifact=str(artifact), runtimes=("onnxruntime",), threads=1, **limits)


# ---- limits --------------------------------------------------------------------------------------


def test_an_endless_file_is_given_up(tmp_path: Path) -> None:
    path = foreign.write(tmp_path / "endless.onnx", foreign.endless())
    with pytest.raises(TimeLimitExceeded, match=r"endless\.onnx: not finished after 2 s"):
        run_to_the_end(path, time_limit_s=2.0)


def test_a_file_that_wants_all_memory_is_given_up(tmp_path: Path) -> None:
    path = foreign.write(tmp_path / "bomb.onnx", foreign.bomb())
    with pytest.raises(
        MemoryLimitExceeded, match=r"bomb\.onnx: used \d+ MB of memory, 600 MB allowed"
    ):
        run_to_the_end(path, memory_limit_mb=600.0, time_limit_s=60.0)


def test_limits_hold_for_artifacts_of_a_study_too(tmp_path: Path) -> None:
    path = foreign.write(tmp_path / "endless.onnx", foreign.endless())
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "x.npy", np.ones((2, 4), np.float32))
    request = Request(Target(), str(path), str(tmp_path / "data"))
    with pytest.raises(TimeLimitExceeded):
        run_bench(request, time_limit_s=1.5, memory_limit_mb=2000.0)


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_the_command_says_that_a_file_was_given_up(tmp_path: Path, command: str) -> None:
    foreign.write(tmp_path / "endless.onnx", foreign.endless())
    out, err = console(tmp_path, command, "endless.onnx", "--time-limit", "2 s").communicate(
        timeout=60
    )
    assert out == ""
    assert (
        err
        == "error: endless.onnx: not finished after 2 s\n  it is slow, or never ends; --time-limit"
        " gives it longer\n"
    )


# ---- the end -------------------------------------------------------------------------------------


def measuring(parent: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that try the file for `parent`, once one of them is busy."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        family = psutil.Process(parent.pid).children(recursive=True)
        busy = [p for p in family if p.cpu_times().user > 1.0]
        if busy:
            return family
        time.sleep(0.1)
    raise AssertionError("nothing was measured")


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("verify", signal.SIGKILL),
        pytest.param("verify", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("bench", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("bench", signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_measuring_ends_with_the_command(
    tmp_path: Path, command: str, number: signal.Signals
) -> None:
    foreign.write(tmp_path / "endless.onnx", foreign.endless())
    running = console(tmp_path, command, "endless.onnx")
    family = measuring(running)
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    assert running.returncode != 0
    assert "Traceback" not in err
    _, left = psutil.wait_procs(family, timeout=20)
    assert not [p for p in left if p.status() != psutil.STATUS_ZOMBIE]


class Crash(OnnxRuntime):
    """A runtime that takes its process with it."""

    name = "test.crash"

    def load(self, path: Path) -> LoadedModel:
        print("about to fall over", file=sys.stderr, flush=True)
        os.abort()


class Broken(OnnxRuntime):
    name = "test.broken"

    def load(self, path: Path) -> LoadedModel:
        raise KeyError("nobody expected this\nat all")


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        (Crash, "was ended by SIGABRT: about to fall over"),
        (Broken, "KeyError: 'nobody expected"),
    ],
)
def test_what_kills_the_process_is_one_message(
    tmp_path: Path, runtime: type[OnnxRuntime], said: str
) -> None:
    path = write_onnx(tmp_path / "m.onnx", hidden=4)
    np.save(tmp_path / "input.npy", np.ones((1, 8), np.float32))
    RUNTIMES.register(runtime.name, runtime)
    try:
        with pytest.raises(BenchDied) as caught:
            run_bench(Request(Target(runtime.name), str(path), str(tmp_path)))
    finally:
        RUNTIMES.forget(runtime.name)
    assert str(path) in caught.value.message
    assert said in caught.value.message
    assert "\n" not in caught.value.message


# ---- runtimes of other people's ------------------------------------------------------------------


class Doubling(OnnxRuntime):
    name = "test.doubling"

    def load(self, path: Path) -> LoadedModel:
        return _Doubled(path, threads=self.target.threads)


class _Doubled(LoadedOnnx):
    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return {name: 2 * array for name, array in super().run(inputs).items()}


def test_a_runtime_registered_at_run_time_is_measured(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", hidden=4)
    (tmp_path / "data").mkdir()
    x = np.ones((3, 8), np.float32)
    np.save(tmp_path / "data" / "input.npy", x)
    request = Request(
        Target(Doubling.name),
        str(path),
        str(tmp_path / "data"),
        predictions=str(tmp_path / "p.npz"),
    )
    RUNTIMES.register(Doubling.name, Doubling)
    try:
        assert run_bench(request)["memory_mb"].mean >= 0
    finally:
        RUNTIMES.forget(Doubling.name)
    expected = 2 * LoadedOnnx(path, threads=1).run({"input": x})["output"]
    np.testing.assert_allclose(load_arrays(tmp_path / "p.npz")["output"], expected, rtol=1e-6)


def test_a_refusal_keeps_its_kind(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        run_to_the_end(tmp_path / "none.onnx")
