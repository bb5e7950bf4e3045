"""Exported ONNX files: names, dynamic batch, leanness, and errors that name the operator."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from petra.core.errors import ExportError
from petra.methods.quantize.ptq import quantize_static
from petra.runtimes import onnx_codes, onnx_lean, onnx_spelling
from petra.runtimes.onnx_export import export_onnx


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.adaptive_avg_pool2d(self.body(x)[:, :, ::2, ::2], 1).flatten(1))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 3), nn.Linear(6, 3)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self.left(a) + self.right(b), self.right(b)


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
        self.head = nn.Linear(16, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        hidden = self.layer(self.embedding(ids) * mask.unsqueeze(-1))
        return {"logits": self.head(hidden[:, 0]), "hidden": hidden}


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_a_tensor_model(tmp_path: Path) -> None:
    model = Pooled().eval()
    path = export_onnx(model, torch.randn(1, 3, 16, 16), tmp_path / "deep" / "m.onnx")
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert [v.name for v in proto.graph.input] == ["input"]
    assert [v.name for v in proto.graph.output] == ["output"]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert sorted(p.name for p in path.parent.iterdir()) == ["m.onnx"]
    assert Counter(n.op_type for n in proto.graph.node)["GlobalAveragePool"] == 1
    loaded = session(path)
    for batch in (1, 7, 64):
        x = torch.randn(batch, 3, 16, 16)
        with torch.no_grad():
            expected = model(x).numpy()
        np.testing.assert_allclose(loaded.run(None, {"input": x.numpy()})[0], expected, atol=1e-3)


def test_tuples_are_numbered(tmp_path: Path) -> None:
    model, inputs = TwoInputs().eval(), (torch.randn(3, 4), torch.randn(3, 6))
    loaded = session(export_onnx(model, inputs, tmp_path / "m.onnx"))
    assert [i.name for i in loaded.get_inputs()] == ["input_0", "input_1"]
    assert [o.name for o in loaded.get_outputs()] == ["output_0", "output_1"]
    got = loaded.run(None, {"input_0": inputs[0].numpy(), "input_1": inputs[1].numpy()})
    with torch.no_grad():
        for ours, theirs in zip(got, model(*inputs), strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)


def test_dictionaries_keep_their_keys(tmp_path: Path) -> None:
    model = Text().eval()
    inputs = {"ids": torch.randint(0, 50, (2, 9)), "mask": torch.ones(2, 9)}
    loaded = session(export_onnx(model, inputs, tmp_path / "m.onnx"))
    assert [i.name for i in loaded.get_inputs()] == ["ids", "mask"]
    assert [o.name for o in loaded.get_outputs()] == ["logits", "hidden"]
    for batch in (1, 7):
        ids, mask = torch.randint(0, 50, (batch, 9)), torch.ones(batch, 9)
        logits, hidden = loaded.run(None, {"ids": ids.numpy(), "mask": mask.numpy()})
        with torch.no_grad():
            expected = model(ids, mask)
        np.testing.assert_allclose(logits, expected["logits"].numpy(), atol=1e-3)
        np.testing.assert_allclose(hidden, expected["hidden"].numpy(), atol=1e-3)


def test_the_file_is_lean(tmp_path: Path) -> None:
    model, x = Pooled().eval(), torch.randn(2, 3, 16, 16)
    proto = onnx.load(export_onnx(model, x, tmp_path / "m.onnx"))
    plain = torch.onnx.export(model, (x,), dynamo=True, verbose=False, external_data=False)
    assert plain is not None
    assert proto.ByteSize() < plain.model_proto.ByteSize() / 3
    graph = proto.graph
    assert not proto.metadata_props
    assert not graph.value_info
    assert not any(node.name or node.doc_string or node.metadata_props for node in graph.node)
    assert all(len(name) <= 2 for node in graph.node for name in node.output if name != "output")
    assert {opset.domain for opset in proto.opset_import} == {""}
    read = {name for node in graph.node for name in node.input}
    assert all(tensor.name in read for tensor in graph.initializer)


WINDOWS = nn.Sequential(
    nn.Conv2d(3, 4, 3),
    nn.Conv2d(4, 4, 3, stride=(2, 1), padding=1),
    nn.Conv2d(4, 4, 3, dilation=2, groups=2, padding=(0, 2)),
    nn.MaxPool2d(2, stride=1),
    nn.AvgPool2d(2, padding=1),
    nn.ConvTranspose2d(4, 2, 2, stride=2),
)


def test_windows_state_what_is_not_a_default_and_nothing_else(tmp_path: Path) -> None:
    model, x = WINDOWS.eval(), torch.randn(2, 3, 20, 20)
    path = export_onnx(model, x, tmp_path / "m.onnx")
    said = [
        {a.name: list(a.ints) or a.i for a in node.attribute} for node in onnx.load(path).graph.node
    ]
    assert {"kernel_shape": [3, 3]} in said
    assert {"kernel_shape": [3, 3], "strides": [2, 1], "pads": [1, 1, 1, 1]} in said
    assert {"kernel_shape": [3, 3], "dilations": [2, 2], "group": 2, "pads": [0, 2, 0, 2]} in said
    assert {"kernel_shape": [2, 2]} in said
    assert {"kernel_shape": [2, 2], "strides": [2, 2]} in said
    (got,) = session(path).run(None, {"input": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(got, model(x).numpy(), atol=1e-4)


def test_training_mode_survives_and_does_not_leak(tmp_path: Path) -> None:
    model, x = Pooled().train(), torch.randn(2, 3, 16, 16)
    loaded = session(export_onnx(model, x, tmp_path / "m.onnx"))
    assert all(module.training for module in model.modules())
    with torch.no_grad():
        expected = model.eval()(x).numpy()
    np.testing.assert_allclose(loaded.run(None, {"input": x.numpy()})[0], expected, atol=1e-3)


def test_export_is_silent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        export_onnx(nn.Linear(4, 2), torch.randn(2, 4), tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


@torch.library.custom_op("petra_test::twist", mutates_args=())
def twist(x: Tensor) -> Tensor:
    return x.flip(0) + 1


@twist.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Twisted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return twist(x)


class Eigen(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvals(x).real


class DataDependent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if bool(x.sum() > 0) else x


@pytest.mark.parametrize(
    ("model", "operator"), [(Twisted(), "petra_test.twist"), (Eigen(), "aten.linalg_eig")]
)
def test_an_operator_without_translation_is_named(
    model: nn.Module, operator: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError) as caught:
        export_onnx(model, torch.randn(3, 4, 4), tmp_path / "m.onnx")
    assert operator in caught.value.operator
    assert operator in str(caught.value)
    assert not (tmp_path / "m.onnx").exists()


def test_untraceable_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be traced"):
        export_onnx(DataDependent(), torch.randn(3, 4), tmp_path / "m.onnx")


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
