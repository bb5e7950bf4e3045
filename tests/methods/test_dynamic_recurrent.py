"""Dynamic quantization of recurrent layers, and what is kept of its result."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from dynamic_models import Encoder, TorchTransformer, ids, run, shipped
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from petra.methods.quantize.dynamic import DynamicQuantize
from petra.methods.quantize.stored import replace_layers
from petra.model.description.differences import describe, rebuild, weights
from petra.model.layers.quantized import (
    QuantizedEmbedding,
)
from petra.model.layers.weight_only import WeightOnlyRecurrent
from petra.runtimes.onnx_export import export_onnx


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


# -- recurrent layers ------------------------------------------------------------------------------


def recurrent(kind: type[nn.RNNBase], **options: object) -> tuple[nn.RNNBase, WeightOnlyRecurrent]:
    """A float layer with the weights the quantized one decodes, and that one."""
    plain = kind(24, 16, num_layers=2, **options)  # type: ignore[arg-type]
    holder = nn.ModuleDict({"layer": plain})

    class Caller(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = holder

        def forward(self, x: Tensor) -> Tensor:
            return self.inner["layer"](x)[0]

    result, trace = run(DynamicQuantize(), Caller().eval(), torch.randn(5, 6, 24))
    stored = result.inner["layer"]  # type: ignore[index]
    assert trace.touched == ("inner.layer",)
    reference = kind(24, 16, num_layers=2, **options).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for name, value in zip(stored.order, stored._weights(), strict=True):
            reference.get_parameter(name).copy_(value)
    return reference, stored


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(
    "options", [{}, {"bidirectional": True, "batch_first": True}, {"bias": False}]
)
def test_recurrent_layers_are_called_as_before(
    kind: type[nn.RNNBase], options: dict[str, object]
) -> None:
    reference, stored = recurrent(kind, **options)
    x = torch.randn(5, 6, 24)
    batch = 5 if options.get("batch_first") else 6
    layers = 4 if options.get("bidirectional") else 2
    state = torch.randn(layers, batch, 16)
    one = torch.randn(layers, 16)
    lengths = torch.tensor([2, 5, 3])
    packed = pack_padded_sequence(
        torch.randn(3, 5, 24), lengths, batch_first=True, enforce_sorted=False
    )

    def with_state(h: Tensor) -> object:
        return (h, h + 1) if kind is nn.LSTM else h

    calls = [(x,), (x, with_state(state)), (x[0],), (x[0], with_state(one))]
    with torch.no_grad():
        for call in calls:
            torch.testing.assert_close(stored(*call), reference(*call))
        got, want = stored(packed), reference(packed)
        torch.testing.assert_close(pad_packed_sequence(got[0])[0], pad_packed_sequence(want[0])[0])
        torch.testing.assert_close(got[1], want[1])


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.body, self.head = kind(24, 32, batch_first=True), nn.Linear(32, 20)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0][:, -1])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_models_ship_in_int8(kind: type[nn.RNNBase], tmp_path: Path) -> None:
    model, x = Recurrent(kind).eval(), torch.randn(6, 9, 24)
    floats = export_onnx(model, x[:2], tmp_path / "float.onnx")
    result, trace = run(DynamicQuantize(), model, x)
    assert trace.details["formats"] == {"int8": 1, "dynamic": 1}
    with torch.no_grad():
        expected = result(x)
    np.testing.assert_allclose(
        shipped(result, x, tmp_path / "m.onnx")[0], expected.numpy(), atol=1e-4
    )
    assert (tmp_path / "m.onnx").stat().st_size < 0.5 * floats.stat().st_size


# -- keeping ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Encoder, TorchTransformer, lambda: Recurrent(nn.LSTM)])
def test_the_result_can_be_described_and_rebuilt(make: type[nn.Module]) -> None:
    original = make().eval()
    x = (
        ids(4)
        if isinstance(original, Encoder)
        else torch.randn(4, 9, 24 if isinstance(original, Recurrent) else 32)
    )
    result, _ = run(DynamicQuantize(), copy.deepcopy(original), x)
    again = rebuild(original, describe(result, original), weights(result)).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(x), result(x), rtol=0, atol=0)


def test_embeddings_alone() -> None:
    model, x = Encoder().eval(), ids(4)
    with torch.no_grad():
        before = model(x)["logits"]
    done, skipped = replace_layers(model, {"embedding": "int8"})
    assert done == ("embedding", "positions")
    assert not skipped
    assert isinstance(model.embedding, QuantizedEmbedding)
    assert isinstance(model.head, nn.Linear)
    with torch.no_grad():
        after = model(x)["logits"]
    assert 0 < (after - before).std() < 0.02 * before.std()
