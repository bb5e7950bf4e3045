"""Recurrent layers in files: whole operators at any length, and items that do not depend on how far
they are padded.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from recurrent_models import (
    FEATURES,
    HIDDEN,
    PACKED,
    SERIES,
    STEPS,
    Classifier,
    Packed,
    compare,
    exported,
    free,
    items,
    packed_items,
)
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from petra.core.errors import ExportError
from petra.core.interface import BATCH, Axis
from petra.core.target import Target
from petra.methods.base import Context
from petra.methods.quantize.weights import WeightQuantize
from petra.model.layers.padded import padded_gru, padded_lstm
from petra.runtimes.onnx_export import export_onnx
from petra.runtimes.table import runtime_for
from petra.tasks.classification import classification

OPTIONS: tuple[dict[str, Any], ...] = (
    {"batch_first": True},
    {"bidirectional": True, "num_layers": 2},
    {"batch_first": True, "bidirectional": True, "bias": False},
)
SIZES = ((1, 1), (1, 40), (3, 2), (2, 7), (5, 23))
RUNTIMES = (
    pytest.param("onnxruntime", 1e-5),
    pytest.param("torch", 1e-5),
    pytest.param("openvino", 1e-4),
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def available(runtime: str) -> None:
    if missing := runtime_for(Target(runtime)).lacks():
        pytest.skip(f"{runtime}: {missing}")


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
@pytest.mark.parametrize("options", OPTIONS)
def test_files_take_any_length(
    kind: type[nn.RNNBase], options: dict[str, Any], tmp_path: Path
) -> None:
    model = Classifier(kind, **options).eval()
    session = exported(model, items(2, 5), SERIES, tmp_path, "onnxruntime")
    for n, length in SIZES:
        compare(session, model, items(n, length), atol=1e-5)
    found = operators(tmp_path / "model.onnx")
    assert found[kind.__name__] == model.rnn.num_layers
    assert found.total() < 12 + 6 * model.rnn.num_layers, "nothing is written out step by step"
    taken = [n for n in onnx.load(str(tmp_path / "model.onnx")).graph.node if n.op_type == "GRU"]
    assert all(len(node.input) <= 4 for node in taken), "first states of zeros are left out"


@pytest.mark.parametrize(("runtime", "atol"), RUNTIMES)
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_every_runtime_takes_any_length(
    kind: type[nn.RNNBase], runtime: str, atol: float, tmp_path: Path
) -> None:
    available(runtime)
    model = Classifier(kind, bidirectional=True, num_layers=2, batch_first=True).eval()
    session = exported(model, items(2, 5), SERIES, tmp_path, runtime)
    for n, length in SIZES:
        compare(session, model, items(n, length), atol)


def test_items_of_one_length_ship_whole_too(tmp_path: Path) -> None:
    model = Classifier(nn.RNN, nonlinearity="relu", batch_first=True).eval()
    export_onnx(model, items(2, 8), tmp_path / "m.onnx")
    assert operators(tmp_path / "m.onnx")["RNN"] == 1


class Decoder(nn.Module):
    """First states that are inputs, of two layers in two directions."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(FEATURES, HIDDEN, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor, h: Tensor) -> dict[str, Tensor]:
        states = h.transpose(0, 1).contiguous()
        out, (last, cell) = self.rnn(x, (states, states.tanh()))
        return {"out": out, "last": last.transpose(0, 1), "cell": cell.transpose(0, 1)}


def test_first_states_may_be_given(tmp_path: Path) -> None:
    model = Decoder().eval()
    axes = ("float32", (Axis(BATCH), Axis.fixed(4), Axis.fixed(HIDDEN)))
    example = {"x": items(2, 5), "h": torch.randn(2, 4, HIDDEN)}
    session = exported(model, example, free(x=STEPS, h=axes), tmp_path, "onnxruntime")
    for n, length in SIZES:
        compare(session, model, {"x": items(n, length), "h": torch.randn(n, 4, HIDDEN)}, 1e-5)


def test_weights_that_are_codes_stay_codes(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(FEATURES, 24, batch_first=True, bidirectional=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(x)[0].mean(1)

    model, x = Net().eval(), items(4, 6)
    split = (x, torch.arange(len(x)))
    task = classification(split, split, split)
    stored, _ = WeightQuantize().apply(model, Context(task=task, teacher=model, seed=0))
    session = exported(stored, x[:2], SERIES, tmp_path, "onnxruntime")
    for n, length in SIZES:
        compare(session, stored, items(n, length), 1e-5)
    tensors = onnx.load(str(tmp_path / "model.onnx")).graph.initializer
    large = [t for t in tensors if np.prod(t.dims) >= 1000]
    assert {t.data_type for t in large} == {onnx.TensorProto.INT8}
    assert operators(tmp_path / "model.onnx")["GRU"] == 1


# -- items of different length ---------------------------------------------------------------------


LENGTHS = ([1], [9], [4, 4], [2, 7, 1, 5], [33, 3, 18])


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}])
def test_packed_items_do_not_depend_on_padding(
    kind: type[nn.RNNBase], options: dict[str, Any], runtime: str, tmp_path: Path
) -> None:
    """Batches and single items, in PyTorch and in the file."""
    atol = 1e-5
    model = Packed(kind, **options).eval()
    session = exported(model, packed_items([5, 3]), PACKED, tmp_path, runtime)
    for lengths in LENGTHS:
        batch = packed_items(lengths)
        compare(session, model, batch, atol)
        together = session.run({name: tensor.numpy() for name, tensor in batch.items()})
        for item, length in enumerate(lengths):
            alone = {"x": batch["x"][item : item + 1, :length], "lengths": torch.tensor([length])}
            compare(session, model, alone, atol)
            single = session.run({name: tensor.numpy() for name, tensor in alone.items()})
            for name in ("logits", "last"):
                np.testing.assert_allclose(single[name][0], together[name][item], atol=atol)
            np.testing.assert_allclose(
                single["steps"][0], together["steps"][item, :length], atol=atol
            )


def test_data_of_a_packed_sequence_may_be_computed_with(tmp_path: Path) -> None:
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project, self.rnn = nn.Linear(FEATURES, 8), nn.GRU(8, HIDDEN)
            self.head = nn.Linear(HIDDEN, 2)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            inner = packed._replace(data=torch.relu(self.project(packed.data)))
            _, state = self.rnn(inner)
            return self.head(state[-1])  # type: ignore[no-any-return]

    model = Projected().eval()
    session = exported(model, packed_items([5, 3]), PACKED, tmp_path, "onnxruntime")
    for lengths in LENGTHS:
        compare(session, model, packed_items(lengths), 1e-5)


@pytest.mark.parametrize(("operator", "kind"), [(padded_gru, nn.GRU), (padded_lstm, nn.LSTM)])
def test_gradients_are_those_of_packed_items(operator: Any, kind: type[nn.RNNBase]) -> None:
    layer = kind(FEATURES, HIDDEN, num_layers=2, bidirectional=True)
    lengths = torch.tensor([3, 7, 1])
    states = [torch.randn(4, 3, HIDDEN) for _ in range(2 if kind is nn.LSTM else 1)]
    weights = list(layer._flat_weights)
    results = []
    for packed in (True, False):
        x = items(3, 7).transpose(0, 1).contiguous().requires_grad_()
        layer.zero_grad()
        hx = states if kind is nn.LSTM else states[0]
        if packed:
            sequence = pack_padded_sequence(x, lengths, enforce_sorted=False)
            out, final = layer(sequence, tuple(hx) if kind is nn.LSTM else hx)
            out = nn.utils.rnn.pad_packed_sequence(out)[0]
            final = final[-1] if kind is nn.LSTM else final
        else:
            out, *finals = operator(x, lengths, hx, weights, True, 2, True)
            final = finals[-1]
        (out.square().sum() + final.sin().sum()).backward()
        results.append([x.grad, *(w.grad for w in weights), out, final])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


# -- what is refused -------------------------------------------------------------------------------


def test_openvino_refuses_packed_items(tmp_path: Path) -> None:
    """Its operators take lengths and compute something else."""
    available("openvino")
    with pytest.raises(ExportError, match="as if all items were of one length"):
        exported(Packed(nn.GRU), packed_items([5, 3]), PACKED, tmp_path, "openvino")
    assert not list(tmp_path.iterdir())


def test_torch_compile_refuses_a_free_length(tmp_path: Path) -> None:
    runtime = runtime_for(Target("torch.compile"))
    with pytest.raises(ExportError, match="rnn out step by step"):
        runtime.export(Classifier(nn.GRU).eval(), items(2, 5), tmp_path / "m.pt2", SERIES)


def test_projections_are_refused(tmp_path: Path) -> None:
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(FEATURES, HIDDEN, proj_size=3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(x)[0].mean(1)

    with pytest.raises(ExportError, match="projections"):
        exported(Projected(), items(2, 5), SERIES, tmp_path, "onnxruntime")
