"""OpenVINO on the files that other tools write, and on the quantized file that ONNX Runtime
runs.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from petra.core.errors import ArtifactError, MissingExtra
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.runtimes.openvino import OpenVino
from petra.testing.stage_suite import ResidualNet
from petra.testing.studies import write_onnx

pytestmark = pytest.mark.skipif(not OpenVino().version(), reason="openvino is not installed")
RNG = np.random.default_rng(0)


def test_its_own_format_loads_too(tmp_path: Path) -> None:
    import openvino

    source = write_onnx(tmp_path / "model.onnx", hidden=8)
    openvino.save_model(
        openvino.Core().read_model(source), tmp_path / "model.xml", compress_to_fp16=False
    )
    x = {"input": RNG.normal(size=(3, 8)).astype(np.float32)}
    session = OpenVino().load(tmp_path / "model.xml")
    assert [(spec.name, spec.dtype, spec.shape) for spec in session.inputs] == [
        ("input", "float32", (None, 8))
    ]
    expected = OnnxRuntime().load(source).run(x)["output"]
    np.testing.assert_allclose(session.run(x)["output"], expected, atol=1e-5)
    (tmp_path / "model.bin").unlink()
    with pytest.raises(ArtifactError, match=r"model\.xml"):
        OpenVino().load(tmp_path / "model.xml")


def test_it_ships_what_onnx_runtime_ships(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = ResidualNet(8).eval(), torch.randn(2, 3, 8, 8)
    (ours,) = OpenVino().export(model, x, tmp_path / "a.onnx")
    (theirs,) = OnnxRuntime().export(model, x, tmp_path / "b.onnx")
    assert ours.read_bytes() == theirs.read_bytes()


def quantized(path: Path, constants: Mapping[str, np.ndarray]) -> Path:
    """u8 x s8 -> u8 convolution between quantize and dequantize, weights in -64..64 as petra's
    are.
    """
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "sx", "zx"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "sx", "zx"], ["x"]),
        helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["f"], axis=0),
        helper.make_node("Conv", ["x", "f"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "sy", "zy"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "sy", "zy"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 16, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 4, 6, 6])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
        str(path),
    )
    return path


def test_extreme_codes_do_not_saturate(tmp_path: Path) -> None:
    """The largest activations on the largest weights: 16-bit sums of pairs would overflow at twice
    the range.
    """
    constants = {
        "sx": np.float32(0.1),
        "zx": np.uint8(0),
        "w": np.full((4, 16, 3, 3), 64, np.int8),
        "sw": np.full(4, 0.01, np.float32),
        "zw": np.zeros(4, np.int8),
        "sy": np.float32(10),
        "zy": np.uint8(0),
    }
    path = quantized(tmp_path / "q.onnx", constants)
    x = {"input": np.full((2, 16, 8, 8), 25.5, np.float32)}
    exact = 25.5 * 0.64 * 16 * 9
    for runtime in (OpenVino(), OnnxRuntime()):
        got = runtime.load(path).run(x)["output"]
        np.testing.assert_allclose(got, exact, atol=5.001)  # half a step of the output


def test_an_operator_that_openvino_cannot_convert_is_named(tmp_path: Path) -> None:
    """A window larger than the data, which PyTorch and ONNX Runtime clip."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(8, ceil_mode=True)).eval()
    (path,) = OpenVino().export(model, torch.randn(2, 3, 4, 4), tmp_path / "m.onnx")
    with pytest.raises(
        ArtifactError, match=r"it cannot convert AveragePool: Kernel .* larger than the data"
    ):
        OpenVino().load(path)


def test_inputs_have_the_names_of_the_file(tmp_path: Path) -> None:
    """Although what is cast at once is one tensor with its cast."""
    nodes = [
        helper.make_node("Cast", ["ids"], ["a"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "a"], ["rows"]),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [2])
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, [2, 3])
    table = numpy_helper.from_array(np.eye(4, 3, dtype=np.float32), "table")
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [ids], [rows], [table])), path)
    loaded = OpenVino().load(path)
    assert loaded.input_names == ("ids",)
    found = loaded.run({"ids": np.array([2, 1])})["rows"]
    assert (found == np.eye(4, 3)[[2, 1]]).all()


def test_outputs_survive_the_next_run(tmp_path: Path) -> None:
    """They are not views of memory that the session writes again."""
    session = OpenVino().load(write_onnx(tmp_path / "model.onnx", hidden=8))
    first = session.run({"input": np.ones((2, 8), np.float32)})["output"]
    kept = first.copy()
    session.run({"input": -np.ones((2, 8), np.float32)})
    np.testing.assert_array_equal(first, kept)


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_onnx(tmp_path / "model.onnx", hidden=8)
    real = builtins.__import__

    def missing(name: str, *args: object, **kwargs: object) -> object:
        if name == "openvino":
            raise ImportError(name)
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtra, match=r"petra\[openvino\]"):
        OpenVino().load(path)
