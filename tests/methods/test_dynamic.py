"""Dynamic quantization: exact integer arithmetic, what is treated and what is not, and the same
numbers everywhere.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from dynamic_models import Encoder, TorchTransformer, ids, run, session, shipped
from onnx import helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn
from torch.nn import functional as F

from petra.core.errors import StageRefused
from petra.measure.operations import count_macs
from petra.methods.quantize.dynamic import DynamicQuantize
from petra.model.layers.quantized import (
    DynamicQuantizedLinear,
    dynamic_linear,
    quantize_activation,
)
from petra.runtimes.onnx_export import export_onnx


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


# -- arithmetic ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(3, 50),
        torch.rand(3, 50) + 4,  # the range includes zero all the same
        -torch.rand(3, 50) - 4,
        torch.zeros(3, 50),
        torch.tensor([[-1.0, 0.5, 254.0, 0.25, 1.5, 2.5]]),  # halves are rounded to even
    ],
    ids=["mixed", "positive", "negative", "zero", "halves"],
)
def test_activations_are_quantized_as_onnx_defines_it(x: Tensor) -> None:
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
    q, s, z = ReferenceEvaluator(node).run(None, {"x": x.numpy()})
    centred, step = quantize_activation(x)
    np.testing.assert_array_equal(centred.numpy(), q.astype(np.float32) - np.float32(z))
    if x.any():  # the step between zeros is of no consequence, and runtimes differ in it
        assert step.item() == pytest.approx(float(s), rel=1e-7)


@pytest.mark.parametrize("inputs", [7, 512, 513, 3000])
def test_integer_products_are_exact(inputs: int) -> None:
    """The worst case: all codes at their extremes, where float32 sums would round."""
    x = torch.randint(0, 256, (5, inputs)).float()
    x[0], x[1, 0], x[2, 1] = 255.0, 0.0, 255.0
    codes = torch.randint(-127, 128, (6, inputs)).to(torch.int8)
    codes[0] = 127
    codes[1] = torch.where(torch.arange(inputs) % 7 == 0, 126, 127).to(torch.int8)
    got = dynamic_linear(x, codes, torch.ones(6, 1), None)
    expected = x.numpy().astype(np.int64) @ codes.numpy().astype(np.int64).T
    np.testing.assert_array_equal(got.numpy(), expected.astype(np.float32))


def test_the_layer_is_near_the_float_layer_and_near_nothing_else() -> None:
    layer, x = nn.Linear(300, 40), torch.randn(8, 300)
    result, _ = run(DynamicQuantize(), nn.Sequential(layer), x)
    with torch.no_grad():
        got, expected = result(x), layer(x)
    assert isinstance(result[0], DynamicQuantizedLinear)
    assert 1e-4 < (got - expected).std() / expected.std() < 0.02
    assert result[0].codes.abs().max() == 64, "half the range, which cannot saturate in 16-bit sums"
    torch.testing.assert_close(
        result[0].weight,
        layer.weight.detach(),
        atol=float(layer.weight.detach().abs().max()) / 100,
        rtol=0,
    )


# -- what is treated -------------------------------------------------------------------------------


def test_all_of_a_transformer_is_treated_and_ships(tmp_path: Path) -> None:
    model, x = Encoder().eval(), ids(6)
    floats = export_onnx(model, x[:2], tmp_path / "float.onnx")
    macs = count_macs(model, x)
    result, trace = run(DynamicQuantize(), model, x)
    assert set(trace.touched) == {"embedding", "positions", "qkv", "out", "up", "down", "head"}
    assert not trace.skipped
    assert trace.details["share_of_layers"] == 1.0
    assert 0.8 < float(str(trace.details["share_of_macs_8_bit"])) < 1.0, (
        "attention products are float"
    )
    assert count_macs(result, x) == macs
    with torch.no_grad():
        expected = result(x)
    logits, hidden = shipped(result, x, tmp_path / "m.onnx")
    np.testing.assert_allclose(logits, expected["logits"].numpy(), atol=1e-5)
    np.testing.assert_allclose(hidden, expected["hidden"].numpy(), atol=1e-5)
    graph = onnx.load(tmp_path / "m.onnx").graph
    kinds = Counter(node.op_type for node in graph.node)
    assert kinds["MatMulInteger"] == 5
    assert kinds["DynamicQuantizeLinear"] == 5
    assert (tmp_path / "m.onnx").stat().st_size < 0.45 * floats.stat().st_size


def test_onnxruntime_fuses_the_integer_layers(tmp_path: Path) -> None:
    result, _ = run(DynamicQuantize(), Encoder(tied=False).eval(), ids(4))
    session(export_onnx(result, ids(2), tmp_path / "m.onnx"), tmp_path / "optimised.onnx")
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert kinds["DynamicQuantizeMatMul"] == 5
    assert not kinds["MatMulInteger"]


def test_a_shared_weight_is_stored_once(tmp_path: Path) -> None:
    model = Encoder().eval()
    result, _ = run(DynamicQuantize(), model, ids(4))
    assert result.embedding.codes is result.head.codes
    export_onnx(result, ids(2), tmp_path / "m.onnx")
    shapes = [tuple(t.dims) for t in onnx.load(tmp_path / "m.onnx").graph.initializer]
    assert shapes.count((90, 32)) + shapes.count((32, 90)) == 1


def test_layers_that_share_a_weight_go_together() -> None:
    _, trace = run(DynamicQuantize(embeddings="float"), Encoder().eval(), ids(4))
    assert "head" not in trace.touched
    assert "embedding" in trace.skipped["head"]
    _, trace = run(DynamicQuantize(embeddings="float"), Encoder(tied=False).eval(), ids(4))
    assert "head" in trace.touched


def test_float_and_excluded_layers_are_named() -> None:
    model = nn.Sequential(
        nn.Conv1d(4, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(320, 32), nn.Linear(32, 16)
    )
    _, trace = run(
        DynamicQuantize(convolutions="float", exclude="last"), model.eval(), torch.randn(4, 4, 12)
    )
    assert trace.touched == ("3",)
    assert trace.skipped == {
        "0": "the weights of convolution layers are to stay in float",
        "4": "excluded",
    }
    with pytest.raises(StageRefused, match="no such module"):
        run(DynamicQuantize(exclude="9"), model, torch.randn(4, 4, 12))


def test_a_model_of_too_small_layers_is_refused() -> None:
    with pytest.raises(StageRefused, match="too small"):
        run(DynamicQuantize(), nn.Sequential(nn.Linear(4, 3)), torch.randn(4, 4))


class Reaching(nn.Module):
    """Uses one layer's weight in place of calling it, and writes into another's."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.written, self.called = (
            nn.Linear(32, 32),
            nn.Linear(32, 32),
            nn.Linear(32, 32),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.read.weight, self.read.bias)
        x = torch.addmm(self.written._parameters["bias"], x, self.written._parameters["weight"].T)
        return self.called(x)


def test_a_model_that_reaches_into_layers_still_computes_the_right_thing(tmp_path: Path) -> None:
    model, x = Reaching().eval(), torch.randn(6, 32)
    with torch.no_grad():
        before = model(x)
    result, trace = run(DynamicQuantize(), model, x)
    assert trace.touched == ("read", "called")
    assert "other than by calling" in trace.skipped["written"]
    with torch.no_grad():
        after = result(x)
    assert (after - before).std() < 0.03 * before.std()
    np.testing.assert_allclose(shipped(result, x, tmp_path / "m.onnx")[0], after.numpy(), atol=1e-5)


class Conv1D(nn.Module):
    """As Hugging Face's GPT-2 has it: a linear layer with a weight of (in, out)."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = (
            nn.Parameter(torch.randn(nx, nf) / nx**0.5),
            nn.Parameter(torch.zeros(nf)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, self.nx), self.weight).view(*x.shape[:-1], self.nf)


def test_transposed_linear_layers_are_integer_too(tmp_path: Path) -> None:
    model, x = (
        nn.Sequential(Conv1D(48, 32), nn.GELU(), Conv1D(32, 48)).eval(),
        torch.randn(6, 5, 32),
    )
    with torch.no_grad():
        before = model(x)
    result, trace = run(DynamicQuantize(), model, x)
    assert trace.details["formats"] == {"dynamic": 2}
    with torch.no_grad():
        after = result(x)
    assert (after - before).std() < 0.03 * before.std()
    np.testing.assert_allclose(shipped(result, x, tmp_path / "m.onnx")[0], after.numpy(), atol=1e-5)


def test_torch_transformers_compute_what_they_export(tmp_path: Path) -> None:
    """Their fused path in evaluation would use the weights without calling the layers."""
    model, x = TorchTransformer().eval(), torch.randn(6, 7, 32)
    with torch.no_grad():
        before = model(x)
    result, trace = run(DynamicQuantize(), model, x)
    assert trace.details["formats"] == {"dynamic": 2 * (4 + 2) + 1}, (
        "every projection of the attention among them"
    )
    with torch.no_grad():
        expected = result(x)
        assert (expected - before).std() < 0.05 * before.std()
    np.testing.assert_allclose(
        shipped(result, x, tmp_path / "m.onnx")[0], expected.numpy(), atol=1e-5
    )
