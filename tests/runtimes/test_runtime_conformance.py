"""Every runtime of ours against the suite that any runtime must pass."""

from __future__ import annotations

from petra.runtimes.onnxruntime import OnnxRuntime
from petra.runtimes.table import RUNTIMES
from petra.runtimes.torch_eager import TorchEager
from petra.testing.runtime_suite import RuntimeSuite


class TestOnnxRuntime(RuntimeSuite):
    runtime = OnnxRuntime


class TestTorchEager(RuntimeSuite):
    runtime = TorchEager


def test_no_runtime_is_left_out() -> None:
    assert {suite.runtime.name for suite in RuntimeSuite.__subclasses__()} == set(RUNTIMES.names())
