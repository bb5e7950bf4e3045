"""What a trace says is quantized, and why the rest is not, against counts made by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage
from petra.methods.quantize.dynamic import DynamicQuantize
from petra.methods.quantize.qat import QuantizationAwareTrain
from petra.methods.quantize.quantized_share import DECODED, PRODUCTS, output_change
from petra.methods.quantize.static import StaticQuantize
from petra.methods.quantize.weights import WeightQuantize
from petra.tasks.classification import classification

EMBEDDING, UP, DECONV, HEAD = 1600, 768, 128, 32
"""Elements of the weights of `Mixed`."""
ON_UP, ON_PRODUCTS, ON_DECONV, ON_HEAD = 5 * UP, 2 * 5 * 5 * 16, 5 * DECONV, HEAD
"""Multiply-accumulates for one item of five tokens."""
ALL = ON_UP + ON_PRODUCTS + ON_DECONV + ON_HEAD
NO_KERNEL, TOO_SMALL = "has no static integer kernel", "its weights are too small to gain anything"


class Mixed(nn.Module):
    """A table, a projection, attention of one head without more weights, a transposed convolution,
    a norm, a head.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.up = nn.Embedding(100, 16), nn.Linear(16, 48, bias=False)
        # No convolution takes its place.
        self.deconv = nn.ConvTranspose1d(16, 8, 1, bias=False, dilation=2)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, ids: Tensor) -> Tensor:
        q, k, v = self.up(self.embedding(ids)).unsqueeze(1).chunk(3, -1)
        h = functional.scaled_dot_product_attention(q, k, v).squeeze(1)
        return self.head(self.norm(self.deconv(h.transpose(1, 2)).transpose(1, 2)).mean(1))


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0].mean(1)


def applied(stage: Stage, model: nn.Module, x: Tensor) -> StageTrace:
    task = classification(*[(x, torch.arange(len(x)) % 4)] * 3)
    return stage.apply(copy.deepcopy(model), Context(task=task, teacher=model, seed=0))[1]


def check(trace: StageTrace, **expected: object) -> None:
    got = {
        key.removeprefix("share_of_"): trace.details[key]
        for key in trace.details
        if key.startswith("share_of_")
    }
    got["float_macs"] = trace.details["float_macs"]
    assert set(got) == {"layers", "macs", "macs_8_bit", "weights", "bytes", "float_macs"}
    floats = expected.pop("float_macs")
    assert isinstance(floats, dict)
    assert got.pop("float_macs") == {
        reason: pytest.approx(n / ALL, abs=1e-4) for reason, n in floats.items()
    }
    assert got == {key: pytest.approx(value, abs=1e-4) for key, value in expected.items()}


@pytest.fixture
def mixed() -> nn.Module:
    torch.manual_seed(0)
    return Mixed().eval()


def ids(n: int = 64) -> Tensor:
    return torch.randint(0, 100, (n, 5), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("embeddings", ["float", "int8"])
def test_static(mixed: nn.Module, embeddings: str) -> None:
    trace = applied(StaticQuantize(embeddings=embeddings, samples=64), mixed, ids())
    table = embeddings == "int8"
    codes = UP + HEAD + EMBEDDING * table
    # Norm, bias, a scale for each row of the table.
    floats = DECONV + 16 + 4 + (100 if table else EMBEDDING)
    check(
        trace,
        layers=(2 + table) / 4,
        macs=(ON_UP + ON_HEAD) / ALL,
        macs_8_bit=(ON_UP + ON_HEAD) / ALL,
        weights=codes / (codes + floats),
        bytes=codes / (codes + 4 * (floats + 48 + 4)),  # and one for each row of the two layers
        float_macs={f"aten.conv_transpose1d.default {NO_KERNEL}": ON_DECONV, PRODUCTS: ON_PRODUCTS},
    )
    assert set(trace.touched) == {"up", "head"} | ({"embedding"} if table else set())


def test_quantization_aware_training(mixed: nn.Module) -> None:
    trace = applied(QuantizationAwareTrain(epochs=1, exclude="head", batch_size=32), mixed, ids())
    floats = EMBEDDING + HEAD + DECONV + 16 + 4
    check(
        trace,
        layers=1 / 4,
        macs=ON_UP / ALL,
        macs_8_bit=ON_UP / ALL,
        weights=UP / (UP + floats),
        bytes=UP / (UP + 4 * (floats + 48)),
        float_macs={
            "excluded": ON_HEAD,
            f"aten.conv_transpose1d.default {NO_KERNEL}": ON_DECONV,
            PRODUCTS: ON_PRODUCTS,
        },
    )


@pytest.mark.parametrize("stage", [DynamicQuantize(), WeightQuantize()])
def test_stored_codes(mixed: nn.Module, stage: Stage) -> None:
    trace = applied(stage, mixed, ids())
    dynamic = isinstance(stage, DynamicQuantize)
    codes, floats = EMBEDDING + UP + DECONV, 16 + HEAD + 4
    check(
        trace,
        layers=3 / 4,
        macs=(ON_UP + ON_DECONV) / ALL,
        macs_8_bit=ON_UP / ALL if dynamic else 0.0,
        weights=codes / (codes + floats),
        bytes=codes / (codes + 4 * (floats + 100 + 48 + 8)),
        float_macs={
            DECODED: ON_DECONV + (0 if dynamic else ON_UP),
            TOO_SMALL: ON_HEAD,
            PRODUCTS: ON_PRODUCTS,
        },
    )
    assert trace.skipped == {"head": TOO_SMALL}


def test_four_bits_take_half_a_byte(mixed: nn.Module) -> None:
    details = applied(WeightQuantize(bits=4, block=16), mixed, ids()).details
    codes = (EMBEDDING + UP) / 2 + DECONV
    scales = (EMBEDDING + UP) / 16 + 8
    assert details["share_of_bytes"] == pytest.approx(
        codes / (codes + 4 * (scales + 16 + HEAD + 4)), abs=1e-4
    )


def test_products_inside_an_attention_layer_are_not_its_weights() -> None:
    torch.manual_seed(0)
    details = applied(WeightQuantize(), Attending().eval(), torch.randn(8, 5, 16)).details
    projections, products = 5 * (16 * 48 + 16 * 16), ON_PRODUCTS
    assert details["share_of_macs"] == pytest.approx(
        projections / (projections + products), abs=1e-4
    )
    assert details["float_macs"] == {
        DECODED: details["share_of_macs"],
        PRODUCTS: pytest.approx(1 - float(str(details["share_of_macs"])), abs=1e-4),
    }  # fmt: skip


class Products(nn.Module):
    """Products of activations, however they are written, beside one layer."""

    def __init__(self, write: str) -> None:
        super().__init__()
        self.write, self.up = write, nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)
        if self.write == "attention":
            return functional.scaled_dot_product_attention(h, h, h).mean(1)
        if self.write == "matmul":
            return (h @ h.transpose(1, 2) @ h).mean(1)
        if self.write == "baddbmm":
            return torch.bmm(torch.baddbmm(torch.ones(1, 5, 5), h, h.transpose(1, 2)), h).mean(1)
        if self.write == "einsum":
            return torch.einsum("bqk,bkd->bqd", torch.einsum("bqd,bkd->bqk", h, h), h).mean(1)
        scores = torch.einsum("...qd,...kd->...qk", h, h)
        return torch.einsum("...qk,...kd->...qd", scores, h).mean(1)


@pytest.mark.parametrize("write", ["attention", "matmul", "baddbmm", "einsum", "einsum with dots"])
def test_products_of_activations_count_however_they_are_written(write: str) -> None:
    torch.manual_seed(0)
    details = applied(
        StaticQuantize(samples=32), Products(write).eval(), torch.randn(32, 5, 16)
    ).details
    layer, products = 5 * 16 * 16, 2 * 5 * 5 * 16
    assert details["share_of_macs_8_bit"] == pytest.approx(layer / (layer + products), abs=1e-4)
    assert details["float_macs"] == {
        PRODUCTS: pytest.approx(products / (layer + products), abs=1e-4)
    }


def test_recurrent_layers_count_by_their_weights() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(16, 8, batch_first=True), nn.Linear(8, 32)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x)[0][:, -1])

    torch.manual_seed(0)
    trace = applied(StaticQuantize(samples=32), Recurrent().eval(), torch.randn(32, 5, 16))
    layer, recurrent = 8 * 32, 5 * 4 * 8 * (16 + 8)
    floats = trace.details["float_macs"]
    assert isinstance(floats, dict)
    assert list(floats.values()) == [pytest.approx(recurrent / (layer + recurrent), abs=1e-4)]
    assert floats.keys() == {trace.skipped["lstm"]}


def test_the_change_is_relative_to_the_spread_and_finite_without_one() -> None:
    before = torch.tensor([0.0, 2.0, 4.0])
    assert output_change(before, before + 1) == pytest.approx(0.5)
    assert output_change(torch.ones(4), torch.ones(4)) == 0.0
