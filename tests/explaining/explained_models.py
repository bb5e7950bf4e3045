"""Small networks exported as petra exports them, for tests that explain their files."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from petra.core.profile import Profile
from petra.core.trial import StageTrace
from petra.methods.quantize.ptq import quantize_static
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.runtimes.torch_eager import TorchEager

LAYERS = ("first", "deep", "middle", "last")


class Net(nn.Module):
    """Three convolutions, one of them depthwise, and a linear layer."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.deep = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.deep(x))
        x = torch.relu(self.middle(x))
        return self.last(x.mean((2, 3)))


def items(count: int = 8) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@cache
def _place() -> Path:
    place = Path(tempfile.mkdtemp(prefix="petra-tests-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


@cache
def float_file(runtime: str = "onnxruntime") -> Path:
    exporter = {"onnxruntime": OnnxRuntime, "torch": TorchEager}[runtime]()
    return exporter.export(net(), items(2), _place() / f"float{exporter.suffix}")[0]


@cache
def int8_file(*exclude: str) -> tuple[Path, StageTrace]:
    """The network in int8 but for `exclude`, and the trace of the stage that would do it."""
    result = quantize_static(
        net(), items(2), [items()], observer="minmax", exclude=frozenset(exclude)
    )
    path = _place() / f"int8-{'-'.join(exclude)}.onnx"
    file = OnnxRuntime().export(result.model, items(2), path)[0]
    details = result.shares.as_details()
    trace = StageTrace(
        "quantize.static", result.layers_quantized, result.layers_skipped, details=details
    )
    return file, trace


@cache
def profiled(file: Path) -> Profile:
    """By ONNX Runtime, in this process."""
    return OnnxRuntime().profile(file, arrays(), 20)


def arrays() -> dict[str, np.ndarray]:
    return {"input": items(1).numpy()}


def open_pair(path: Path) -> Path:
    """A convolution between dequantize operators whose result nobody quantizes again, behind one
    with nodes and values of unpleasant names.
    """
    rng = np.random.default_rng(0)
    codes = rng.integers(-64, 64, (8, 8, 3, 3)).astype(np.int8)
    constants = {
        "w1": codes,
        "w2": codes,
        "s": np.float32(0.01),
        "sw": np.float32(0.02),
        "z": np.uint8(128),
        "zw": np.int8(0),
    }
    hostile = 'a"}],\x1b[31m<script>alert(1)</script>\n'
    q = ["s", "z"]
    nodes = [
        helper.make_node("QuantizeLinear", ["input", *q], ["q0"], name=hostile),
        helper.make_node("DequantizeLinear", ["q0", *q], ["d0"], name="b"),
        helper.make_node("DequantizeLinear", ["w1", "sw", "zw"], ["dw1"], name="c"),
        helper.make_node("Conv", ["d0", "dw1"], ["c1"], name=f"conv {hostile}", pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["c1", *q], ["q1"], name="e"),
        helper.make_node("DequantizeLinear", ["q1", *q], ["d1"], name="f"),
        helper.make_node("DequantizeLinear", ["w2", "sw", "zw"], ["dw2"], name="g"),
        helper.make_node("Conv", ["d1", "dw2"], [hostile], name="open", pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", [hostile], [f"out {hostile}"], name="h"),
    ]
    shape = ["batch", 8, 12, 12]
    graph = helper.make_graph(
        nodes,
        "pair",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"out {hostile}", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def pair_arrays() -> dict[str, np.ndarray]:
    return {"input": np.random.default_rng(1).normal(size=(1, 8, 12, 12)).astype(np.float32)}
