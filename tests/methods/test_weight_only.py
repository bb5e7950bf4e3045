"""Weight-only quantization: rounding against brute force, every kind of layer, and files of the
promised size.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.measure.operations import count_macs
from petra.methods.base import Context
from petra.methods.quantize.rounding import per_channel
from petra.methods.quantize.weights import WeightQuantize
from petra.model.description.differences import describe, rebuild, weights
from petra.model.layers.quantized import Codes, Int4Linear, QuantizedEmbedding
from petra.model.layers.weight_only import WeightOnly
from petra.runtimes.onnx_export import export_onnx
from petra.tasks.classification import classification


def run(stage: WeightQuantize, model: nn.Module, x: Tensor) -> tuple[nn.Module, StageTrace]:
    split = (x, torch.arange(len(x)) % 2)
    return stage.apply(
        model, Context(task=classification(split, split, split), teacher=model, seed=0)
    )


def shipped(model: nn.Module, x: Tensor, path: Path) -> np.ndarray:
    """The first output of the exported file on `x`; it was traced with another batch size."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    exported = export_onnx(model, x[:2], path)
    loaded = onnxruntime.InferenceSession(
        str(exported), options, providers=["CPUExecutionProvider"]
    )
    result: np.ndarray = loaded.run(None, {loaded.get_inputs()[0].name: x.numpy()})[0]
    return result


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


# -- layers ----------------------------------------------------------------------------------------


class Everything(nn.Module):
    """One layer of each kind, among them transposed, grouped and padded convolutions and a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(200, 64)
        self.lstm = nn.LSTM(64, 32, batch_first=True, bidirectional=True)
        self.conv = nn.Conv1d(64, 48, 3, padding=1, padding_mode="circular")
        self.grouped = nn.Conv1d(48, 48, 3, groups=4, padding="same")
        self.up = nn.ConvTranspose1d(48, 64, 4, stride=2)
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)
        self.cell = nn.GRUCell(64, 64)
        self.norm = nn.LayerNorm([64])
        self.bilinear = nn.Bilinear(64, 64, 8)
        self.head = nn.Linear(8, 64)
        self.last = nn.Linear(64, 40)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.lstm(self.table(ids))[0].transpose(1, 2)
        x = self.up(self.grouped(torch.relu(self.conv(x)))).transpose(1, 2)
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0]).mean(1)
        x = self.bilinear(x, self.cell(x))
        return self.last(torch.relu(self.head(x)))


def ids(n: int, t: int = 9) -> Tensor:
    return torch.randint(0, 200, (n, t), generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize(
    ("bits", "error", "size"),
    [pytest.param(16, 1e-3, 0.56, marks=pytest.mark.slow), (8, 0.05, 0.34), (4, 0.4, 0.34)],
)
def test_every_kind_of_layer_is_stored_and_ships(
    bits: int, error: float, size: float, tmp_path: Path
) -> None:
    model, x = Everything().eval(), ids(6)
    floats, macs = export_onnx(model, x[:2], tmp_path / "float.onnx"), count_macs(model, x)
    with torch.no_grad():
        before = model(x)
    result, trace = run(WeightQuantize(bits=bits), model, x)
    kinds = {
        "table",
        "lstm",
        "conv",
        "grouped",
        "up",
        "attention",
        "attention.out_proj",
        "cell",
        "bilinear",
        "last",
    }
    assert set(trace.touched) >= kinds
    assert set(trace.skipped) <= {"head"}
    with torch.no_grad():
        after = result(x)
    assert 0 < (after - before).std() < error * before.std()
    assert count_macs(result, x) == macs
    got = shipped(result, x, tmp_path / "m.onnx")
    np.testing.assert_allclose(got, after.numpy(), atol=1e-4 * float(after.std()) + 1e-5)
    assert (tmp_path / "m.onnx").stat().st_size < size * floats.stat().st_size


def test_scales_belong_to_outputs() -> None:
    """A layer whose outputs differ a thousandfold keeps the small ones only if each has a scale of
    its own.
    """
    for layer, x in (
        (nn.Linear(32, 16), torch.randn(4, 32)),
        (nn.Conv2d(8, 16, 3), torch.randn(4, 8, 5, 5)),
        (nn.ConvTranspose2d(8, 16, 3), torch.randn(4, 8, 5, 5)),
    ):
        axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
        with torch.no_grad():
            layer.weight.mul_(
                torch.logspace(-4, 0, 16).reshape(
                    [-1 if d == axis else 1 for d in range(layer.weight.ndim)]
                )
            )
            layer.bias.zero_()
            before = layer(x).transpose(0, 1).flatten(1)
            after = run(WeightQuantize(), nn.Sequential(layer), x)[0](x).transpose(0, 1).flatten(1)
        assert ((after - before).std(1) < 0.02 * before.std(1)).all()


def test_four_bits_are_for_linear_layers_and_embeddings() -> None:
    model = nn.Sequential(
        nn.Embedding(100, 48), nn.Linear(48, 64), nn.Linear(64, 20), nn.Linear(20, 64)
    )
    result, trace = run(
        WeightQuantize(bits=4, block=128), model.eval(), torch.randint(0, 100, (4, 3))
    )
    assert isinstance(result[0], QuantizedEmbedding)
    assert isinstance(result[1], Int4Linear)
    assert result[1].scale.shape == (64, 3), "48 inputs in blocks of 16"
    assert result[2].scale.shape == (20, 1), "64 inputs in one block"
    assert isinstance(result[3], WeightOnly), "20 inputs fit no block"
    assert trace.details["formats"] == {"int4": 3, "int8": 1}


def test_tied_tables_keep_one_copy_of_their_codes(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(128, 64), nn.Linear(64, 128, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(torch.tanh(self.table(ids))).mean(1)

    for bits, file_bytes in ((8, 10_500), (4, 7_000), (16, 17_800)):
        model, x = Tied().eval(), ids(5) % 128
        result, trace = run(WeightQuantize(bits=bits), model, x)
        assert set(trace.touched) == {"table", "head"}
        with torch.no_grad():
            expected = result(x).numpy()
        np.testing.assert_allclose(shipped(result, x, tmp_path / "m.onnx"), expected, atol=1e-4)
        assert (tmp_path / "m.onnx").stat().st_size < file_bytes


def test_weights_that_half_precision_cannot_hold_stay() -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    with torch.no_grad():
        model[0].weight[0, 0] = 1e5
    _, trace = run(WeightQuantize(bits=16), model.eval(), torch.randn(4, 32))
    assert trace.touched == ("1",)
    assert "65504" in trace.skipped["0"]


def test_reasons_for_what_is_left() -> None:
    model = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(32, 32)),
        nn.Linear(32, 32).double(),
        nn.Linear(32, 32),
    )

    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.table = model, nn.Parameter(torch.randn(32, 32))

        def forward(self, x: Tensor) -> Tensor:
            return self.body[2](self.body[1]((self.body[0](x) @ self.table).double()).float())

    _, trace = run(WeightQuantize(), Cast().eval(), torch.randn(4, 32))
    assert trace.touched == ("body.2",)
    assert "not float32" in trace.skipped["body.1"]
    assert "holds other layers" in trace.skipped[""]
    assert any("computed from other parameters" in reason for reason in trace.skipped.values())


def test_nothing_to_store_is_refused() -> None:
    with pytest.raises(StageRefused, match="excluded"):
        run(WeightQuantize(exclude="0"), nn.Sequential(nn.Linear(64, 64)), torch.randn(4, 64))


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_the_result_can_be_described_and_rebuilt(bits: int) -> None:
    original, x = Everything().eval(), ids(4)
    result, _ = run(WeightQuantize(bits=bits), copy.deepcopy(original), x)
    again = rebuild(original, describe(result, original), weights(result)).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(x), result(x), rtol=0, atol=0)


def test_a_wrapped_layer_looks_like_the_layer() -> None:
    layer = nn.Conv2d(8, 16, 3, stride=2)
    q, s = per_channel(layer.weight.detach(), 127)
    wrapped = WeightOnly(layer, {"weight": Codes(nn.Parameter(q, requires_grad=False), s)})
    assert wrapped.stride == (2, 2)
    assert wrapped.weight.dtype == torch.float32
    assert torch.equal(wrapped.weight, q * s)
    assert wrapped.bias is layer.bias
    with pytest.raises(AttributeError):
        _ = wrapped.nonsense
    assert torch.equal(
        copy.deepcopy(wrapped)(torch.ones(1, 8, 5, 5)), wrapped(torch.ones(1, 8, 5, 5))
    )


def test_int8_files_hold_no_float_copies(tmp_path: Path) -> None:
    """The exporter folds operators on small constants; codes must survive that, and our own
    passes.
    """
    result, _ = run(
        WeightQuantize(),
        nn.Sequential(nn.Linear(32, 40), nn.ReLU(), nn.Linear(40, 24)),
        torch.randn(4, 32),
    )
    export_onnx(result, torch.randn(2, 32), tmp_path / "m.onnx")
    tensors = {tuple(t.dims): t.data_type for t in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert tensors[40, 32] == tensors[24, 40] == onnx.TensorProto.INT8
    assert {opset.domain for opset in onnx.load(tmp_path / "m.onnx").opset_import} == {""}
