"""Exported ONNX files: names, dynamic batch, leanness, and errors that name the operator."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from petra.core.errors import ExportError
from petra.runtimes import onnx_registry
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


def test_the_table_of_operators_is_parsed_once_and_the_file_is_the_same(tmp_path: Path) -> None:
    model, example = Pooled().eval(), torch.zeros(2, 3, 8, 8)
    export_onnx(model, example, tmp_path / "first.onnx")
    parsed = onnx_registry._parsed.cache_info()
    export_onnx(model, example, tmp_path / "again.onnx")
    assert onnx_registry._parsed.cache_info().misses == parsed.misses
    assert onnx_registry._parsed.cache_info().hits > parsed.hits
    onnx_registry._parsed.cache_clear()
    export_onnx(model, example, tmp_path / "anew.onnx")
    files = [(tmp_path / f"{name}.onnx").read_bytes() for name in ("first", "again", "anew")]
    assert files[0] == files[1] == files[2]


def test_what_an_export_adds_to_the_table_stays_its_own() -> None:
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    operator = torch.ops.aten.relu.default
    original = ONNXRegistry.__dict__["from_torchlib"]
    with onnx_registry.parsed_once():
        one = ONNXRegistry().from_torchlib(opset_version=20)
        one.register_op(operator, lambda x: x)
        other = ONNXRegistry().from_torchlib(opset_version=20)
    assert len(one.get_decomps(operator)) == len(other.get_decomps(operator)) + 1
    assert ONNXRegistry.__dict__["from_torchlib"] is original


def test_operators_that_came_later_are_translated(tmp_path: Path) -> None:
    """Translations of operators that no import has defined yet are left out of the table."""
    program = (
        "import sys, torch; from pathlib import Path; from torch import nn;"
        "from petra.runtimes.onnx_export import export_onnx;"
        "export_onnx(nn.Linear(4, 4).eval(), torch.zeros(2, 4), Path(sys.argv[1]));"
        "assert not hasattr(torch.ops.quantized_decomposed, 'quantize_per_tensor');"
        "from torch.ao.quantization.fx import _decomposed;"
        "f = torch.ops.quantized_decomposed.quantize_per_tensor.default;"
        "m = type('M', (nn.Module,), {'forward': lambda s, x: f(x, .1, 0, -128, 127, torch.int8)});"
        "export_onnx(m().eval(), torch.zeros(2, 4), Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "m.onnx")], check=True)
    assert "QuantizeLinear" in {n.op_type for n in onnx.load(tmp_path / "m.onnx").graph.node}
