"""The operators of `petra.model.layers.quantized` in ONNX files: only standard ones, compact, the
same numbers everywhere.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from petra.methods.quantize.rounding import pack, per_channel, per_group
from petra.model.layers.quantized import (
    Codes,
    DynamicQuantizedLinear,
    Int4Linear,
    QuantizedEmbedding,
)
from petra.model.layers.weight_only import WeightOnly
from petra.runtimes.onnx_export import export_onnx
from petra.runtimes.onnx_inspect import count_operators


def codes(weight: Tensor, bits: int) -> Codes:
    if bits == 4:
        q, scale = per_group(weight, 16)
        return Codes(nn.Parameter(pack(q), requires_grad=False), scale)
    q, scale = per_channel(weight, 64)
    return Codes(nn.Parameter(q, requires_grad=False), scale)


class Mixed(nn.Module):
    """Every operator, with and without bias, and a packed table that is looked up and also read as
    a whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self.table = QuantizedEmbedding(codes(torch.randn(60, 32), 4), None)
        self.dynamic = DynamicQuantizedLinear(
            codes(torch.randn(48, 32) / 6, 8), nn.Parameter(torch.randn(48))
        )
        self.bare = DynamicQuantizedLinear(codes(torch.randn(64, 48) / 7, 8), None)
        self.packed = Int4Linear(codes(torch.randn(80, 64) / 8, 4), nn.Parameter(torch.randn(80)))
        self.plain = Int4Linear(codes(torch.randn(32, 80) / 9, 4), None)
        conv = nn.Conv1d(32, 24, 3)
        self.conv = WeightOnly(conv, {"weight": codes(conv.weight.detach(), 8)})

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        x = F.relu(self.bare(F.relu(self.dynamic(self.table(ids)))))
        x = self.plain(F.relu(self.packed(x)))
        return {"logits": x @ self.table.weight.T, "conv": self.conv(x.transpose(1, 2))}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Mixed, Path, Tensor]:
    torch.manual_seed(0)
    model = Mixed().eval()
    ids = torch.randint(0, 60, (5, 9))
    return model, export_onnx(model, ids[:2], tmp_path_factory.mktemp("mixed") / "m.onnx"), ids


def test_the_file_has_standard_operators_and_no_float_weights(
    exported: tuple[Mixed, Path, Tensor],
) -> None:
    _, path, _ = exported
    proto = onnx.load(path)
    onnx.checker.check_model(proto)
    domains = Counter(node.domain for node in proto.graph.node)
    assert set(domains) == {"", "com.microsoft"} == {opset.domain for opset in proto.opset_import}
    assert (
        domains["com.microsoft"] == Counter(n.op_type for n in proto.graph.node)["MatMulNBits"] == 2
    )
    floats = [t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert max(int(np.prod(t.dims)) for t in floats) <= 320, "only biases and scales"
    assert sum(1 for t in proto.graph.initializer if list(t.dims) == [60, 16]) == 1, (
        "the table is stored once"
    )


def test_onnxruntime_agrees(exported: tuple[Mixed, Path, Tensor]) -> None:
    model, path, ids = exported
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = model(ids)
    for got, want in zip(session.run(None, {"input": ids.numpy()}), expected.values(), strict=True):
        np.testing.assert_allclose(got, want.numpy(), atol=1e-4)


def test_its_integer_layers_are_counted(exported: tuple[Mixed, Path, Tensor]) -> None:
    counted = count_operators(exported[1])
    assert counted.integer == 4
    assert counted.compute == 6


def test_openvino_agrees(exported: tuple[Mixed, Path, Tensor]) -> None:
    openvino = pytest.importorskip("openvino", reason="needs OpenVINO")
    model, path, ids = exported
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 1,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    with torch.no_grad():
        expected = model(ids)
    for got, want in zip(compiled(ids.numpy()).values(), expected.values(), strict=True):
        np.testing.assert_allclose(got, want.numpy(), atol=1e-3)
