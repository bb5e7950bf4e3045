"""Graphs made lean: codes moved, paddings and clips taken in, constants shared."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from petra.methods.quantize.ptq import quantize_static
from petra.runtimes import onnx_codes, onnx_lean, onnx_spelling
from petra.runtimes.onnx_export import export_onnx


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def graph_of(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A model of float `x` (2, 3, 4, 4) -> float `y`."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3, 4, 4))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", "c", "h", "w"))
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "test", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


SCALE = {"s": np.float32(0.05), "z": np.uint8(100)}


QUANTIZED_MOVES = {
    "relu": ([helper.make_node("Relu", ["d"], ["m"])], {}),
    "clip": (
        [helper.make_node("Clip", ["d", "lo", "hi"], ["m"])],
        {"lo": np.float32(-1), "hi": np.float32(1.5)},
    ),
    "pad": (
        [helper.make_node("Pad", ["d", "p"], ["m"])],
        {"p": np.array([0, 1, 0, 0, 0, 1, 0, 0])},
    ),
    "pool": (
        [helper.make_node("MaxPool", ["d"], ["m"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
        {},
    ),
    "slice": (
        [helper.make_node("Slice", ["d", "a", "b", "c", "e"], ["m"])],
        {"a": np.array([0]), "b": np.array([4]), "c": np.array([2]), "e": np.array([2])},
    ),
    "concat": ([helper.make_node("Concat", ["d", "d"], ["m"], axis=1)], {}),
}


@pytest.mark.parametrize("name", QUANTIZED_MOVES)
def test_moves_work_on_codes_with_the_same_result(name: str) -> None:
    moves, constants = QUANTIZED_MOVES[name]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        *moves,
        helper.make_node("QuantizeLinear", ["m", "s", "z"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "s", "z"], ["y"]),
    ]
    model = graph_of(nodes, {**SCALE, **constants})
    x = np.random.default_rng(0).normal(0, 3, (2, 3, 4, 4)).astype(np.float32)
    expected = onnx.reference.ReferenceEvaluator(model).run(None, {"x": x})[0]
    model = onnx_lean.make_lean(model)
    onnx.checker.check_model(model, full_check=True)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert (kinds["QuantizeLinear"], kinds["DequantizeLinear"], len(model.graph.node)) == (1, 1, 3)
    got = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("zero_point", "left"), [(0, 0), (100, 1)])
def test_a_relu_before_a_quantize_goes_or_becomes_a_clip_of_codes(
    zero_point: int, left: int
) -> None:
    nodes = [
        helper.make_node("Add", ["x", "x"], ["t"]),
        helper.make_node("Relu", ["t"], ["m"]),
        helper.make_node("QuantizeLinear", ["m", "s", "z"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "s", "z"], ["y"]),
    ]
    model = graph_of(nodes, {"s": np.float32(0.05), "z": np.uint8(zero_point)})
    x = np.random.default_rng(0).normal(0, 3, (2, 3, 4, 4)).astype(np.float32)
    expected = onnx.reference.ReferenceEvaluator(model).run(None, {"x": x})[0]
    assert onnx_codes.drop_saturated_clips(model.graph)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert (kinds["Relu"], kinds["Clip"]) == (0, left)
    got = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_array_equal(got, expected)


def padded_convolution(amounts: list[int], value: int, *, twice: bool = False) -> onnx.ModelProto:
    """x -> codes -> Pad -> dequantize -> 2x2 convolution of stride 2 with one pixel of padding of
    its own.
    """
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("Pad", ["q", "p", "v"], ["m"]),
        helper.make_node("DequantizeLinear", ["m", "s", "z"], ["d"]),
        helper.make_node("Conv", ["d", "w"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Conv", ["d", "w"], ["e"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Add", ["c", "e"] if twice else ["c", "c"], ["y"]),
    ]
    channels = 3 + amounts[1] + amounts[5]
    weight = np.random.default_rng(1).normal(size=(2, channels, 2, 2)).astype(np.float32)
    constants = {**SCALE, "p": np.array(amounts), "v": np.uint8(value), "w": weight}
    return graph_of(nodes[:4] + (nodes[4:5] if twice else []) + nodes[5:], constants)


@pytest.mark.parametrize(
    ("amounts", "value", "twice", "pads"),
    [
        ([0, 0, 0, 0, 0, 0, 1, 1], 100, False, 0),  # zeros around the image: the convolution's own
        ([0, 0, 2, 0, 0, 0, 0, 3], 100, False, 0),
        ([0, 0, 0, 0, 0, 0, 1, 1], 90, False, 1),  # not zeros
        ([0, 1, 0, 0, 0, 1, 1, 1], 100, False, 1),  # channels too
        ([0, 0, -1, 0, 0, 0, 1, 1], 100, False, 1),  # a crop
        ([0, 0, 0, 0, 0, 0, 1, 1], 100, True, 1),  # another reader
    ],
)
def test_convolutions_pad_themselves(
    amounts: list[int], value: int, twice: bool, pads: int
) -> None:
    model = padded_convolution(amounts, value, twice=twice)
    x = np.random.default_rng(0).normal(0, 3, (2, 3, 4, 4)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    onnx_spelling.pad_in_convolutions(model.graph)
    onnx.checker.check_model(model)
    assert Counter(node.op_type for node in model.graph.node)["Pad"] == pads
    (got,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", [nn.Identity, nn.ReLU])
def test_layers_kept_in_float_stay_float_in_the_runtime(
    activation: type[nn.Module], tmp_path: Path
) -> None:
    """ONNX Runtime would quantize the weights of a float layer between two integer ones."""
    layers = [
        nn.Conv2d(8, 8, 3, padding=1),
        activation(),
        nn.Conv2d(8, 8, 3, padding=1),
        activation(),
    ]
    model = nn.Sequential(*layers, nn.Conv2d(8, 8, 3, padding=1)).eval()
    x = torch.randn(64, 8, 6, 6)
    result = quantize_static(model, x[:2], [x], observer="minmax", exclude=frozenset({"2"}))
    path = export_onnx(result.model, x[:2], tmp_path / "mixed.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    (got,) = onnxruntime.InferenceSession(str(path), options).run(None, {"input": x.numpy()})
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert kinds["QLinearConv"] == 2
    with torch.no_grad():
        expected = result.model(x).numpy()
    assert np.sqrt(np.mean((got - expected) ** 2)) < 0.005 * expected.std()


def test_equal_constants_are_stored_once() -> None:
    nodes = [helper.make_node("Add", ["x", "a"], ["t"]), helper.make_node("Mul", ["t", "b"], ["y"])]
    model = graph_of(nodes, {"a": np.ones(4, np.float32), "b": np.ones(4, np.float32)})
    model = onnx_lean.make_lean(model)
    assert len(model.graph.initializer) == 1
    assert model.graph.node[0].input[1] == model.graph.node[1].input[1]
