"""Every runtime of ours against the suite that any runtime must pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from petra.core.target import Target
from petra.runtimes.litert import LiteRt
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.runtimes.openvino import OpenVino
from petra.runtimes.table import RUNTIMES, deployable, runtime_for, runtimes_by_suffix
from petra.runtimes.torch_compile import TorchCompile
from petra.runtimes.torch_eager import TorchEager
from petra.testing.runtime_suite import RuntimeSuite
from petra.testing.studies import write_onnx


class TestOnnxRuntime(RuntimeSuite):
    runtime = OnnxRuntime


class TestOpenVino(RuntimeSuite):
    runtime = OpenVino


@pytest.mark.slow  # seconds for every file
class TestLiteRt(RuntimeSuite):
    runtime = LiteRt


class TestTorchEager(RuntimeSuite):
    runtime = TorchEager
    needs_torch = True


@pytest.mark.slow  # two compilations for every model
class TestTorchCompile(RuntimeSuite):
    runtime = TorchCompile
    needs_torch = True


class TestTorchOnCuda(RuntimeSuite):
    runtime = TorchEager
    device = "cuda"
    needs_torch = True


@pytest.mark.slow
class TestTorchCompileOnCuda(RuntimeSuite):
    runtime = TorchCompile
    device = "cuda"
    needs_torch = True


def test_no_runtime_is_left_out() -> None:
    here = [suite for suite in RuntimeSuite.__subclasses__() if suite.__module__ == __name__]
    assert {Target(suite.runtime.name, suite.device).name for suite in here} == set(deployable())
    assert {suite.runtime.name for suite in here} == set(RUNTIMES.names())


def test_a_file_stands_for_the_plainest_runtime_that_loads_it() -> None:
    assert runtimes_by_suffix() == {
        ".onnx": "onnxruntime",
        ".xml": "openvino",
        ".pt2": "torch",
        ".tflite": "litert",
    }
    assert all(
        Path(f"model{RUNTIMES.get(name).suffix}").suffix in runtimes_by_suffix()
        for name in RUNTIMES
    )


@pytest.mark.parametrize("spinning", [True, False])
def test_options_reach_the_runtime(tmp_path: Path, spinning: bool) -> None:
    path = write_onnx(tmp_path / "model.onnx", hidden=4)
    session = runtime_for(Target(options={"spinning": spinning})).load(path)
    used = session._session.get_session_options()  # type: ignore[attr-defined]
    entry = used.get_session_config_entry("session.intra_op.allow_spinning")
    assert entry == str(int(spinning))
