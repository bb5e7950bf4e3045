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
    Called,
    Classifier,
    Edited,
    Packed,
    Projected,
    compare,
    exported,
    free,
    items,
    packed_items,
)
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from petra.core.errors import ExportError, PetraError
from petra.core.interface import BATCH, Axis
from petra.core.target import Target
from petra.methods.base import Context
from petra.methods.quantize.weights import WeightQuantize
from petra.model.layers.padded import padded_gru, padded_lstm
from petra.runtimes.onnx_export import export_onnx
from petra.runtimes.openvino import takes_lengths
from petra.runtimes.table import runtime_for
from petra.tasks.classification import classification

SIZES = ((1, 1), (1, 40), (3, 2), (2, 7), (5, 23))
ATOL = {"onnxruntime": 1e-5, "torch": 1e-5, "openvino": 1e-4}
PLAIN = {"batch_first": True}
DEEP = {"bidirectional": True, "num_layers": 2, "dropout": 0.5}  # which evaluation leaves out
BARE = {"batch_first": True, "bidirectional": True, "bias": False}
FORMS: tuple[tuple[type[nn.RNNBase], dict[str, Any]], ...] = (
    (nn.GRU, DEEP),
    (nn.RNN, {**BARE, "nonlinearity": "relu"}),
)
OTHER_FORMS: tuple[tuple[type[nn.RNNBase], dict[str, Any]], ...] = (
    (nn.GRU, PLAIN),
    (nn.GRU, BARE),
    (nn.LSTM, DEEP),
    (nn.LSTM, PLAIN),
    (nn.LSTM, BARE),
    (nn.RNN, PLAIN),
    (nn.RNN, DEEP),
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def available(runtime: str) -> None:
    if missing := runtime_for(Target(runtime)).lacks():
        pytest.skip(f"{runtime}: {missing}")


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


@pytest.mark.parametrize(("kind", "options"), [*FORMS, *(slow(*form) for form in OTHER_FORMS)])
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


@pytest.mark.parametrize(
    ("kind", "runtime"),
    [
        (nn.GRU, "openvino"),
        slow(nn.LSTM, "torch"),
        *(slow(*other) for other in ((nn.LSTM, "openvino"), (nn.RNN, "openvino"))),
        *(slow(*other) for other in ((nn.GRU, "torch"), (nn.RNN, "torch"))),
    ],
)
def test_other_runtimes_take_any_length(
    kind: type[nn.RNNBase], runtime: str, tmp_path: Path
) -> None:
    available(runtime)
    model = Classifier(kind, bidirectional=True, num_layers=2, batch_first=True).eval()
    session = exported(model, items(2, 5), SERIES, tmp_path, runtime)
    for n, length in SIZES:
        compare(session, model, items(n, length), ATOL[runtime])


@pytest.mark.slow
def test_items_of_one_length_ship_whole_too(tmp_path: Path) -> None:
    model = Classifier(nn.RNN, nonlinearity="relu", batch_first=True).eval()
    export_onnx(model, items(2, 8), tmp_path / "m.onnx")
    assert operators(tmp_path / "m.onnx")["RNN"] == 1


@pytest.mark.parametrize("runtime", ["onnxruntime", slow("openvino"), slow("torch")])
def test_layers_may_be_called_twice_without_a_batch_and_from_any_state(
    runtime: str, tmp_path: Path
) -> None:
    available(runtime)
    model = Called().eval()
    axes = ("float32", (Axis(BATCH), Axis.fixed(4), Axis.fixed(HIDDEN)))
    example = {"x": items(2, 5), "h": torch.randn(2, 4, HIDDEN)}
    session = exported(model, example, free(x=STEPS, h=axes), tmp_path, runtime)
    for n, length in SIZES:
        inputs = {"x": items(n, length), "h": torch.randn(n, 4, HIDDEN)}
        compare(session, model, inputs, ATOL[runtime])
    if runtime == "onnxruntime":
        held = onnx.load(str(tmp_path / "model.onnx")).graph.initializer
        sizes = sum(np.prod(tensor.dims) for tensor in held)
        stacked = sum(weight.numel() for weight in model.parameters()) + 4 * HIDDEN * HIDDEN
        assert sizes < 1.05 * stacked, "three calls have one copy"


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_weights_that_are_codes_stay_codes(runtime: str, tmp_path: Path) -> None:
    available(runtime)

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
    session = exported(stored, x[:2], SERIES, tmp_path, runtime)
    for n, length in SIZES:
        compare(session, stored, items(n, length), ATOL[runtime])
    if runtime == "torch":
        return
    tensors = onnx.load(str(tmp_path / "model.onnx")).graph.initializer
    large = [t for t in tensors if np.prod(t.dims) >= 1000]
    assert {t.data_type for t in large} == {onnx.TensorProto.INT8}
    assert operators(tmp_path / "model.onnx")["GRU"] == 1
    assert not takes_lengths(tmp_path / "model.onnx")


# -- items of different length ---------------------------------------------------------------------


LENGTHS = ([1], [9], [4, 4], [2, 7, 1, 5], [33, 3, 18])


@pytest.mark.parametrize(
    ("kind", "options", "runtime"),
    [
        (nn.GRU, DEEP, "onnxruntime"),
        (nn.LSTM, {}, "torch"),
        slow(nn.GRU, {}, "onnxruntime"),
        slow(nn.GRU, DEEP, "torch"),
        slow(nn.LSTM, {}, "onnxruntime"),
        slow(nn.LSTM, DEEP, "onnxruntime"),
        slow(nn.LSTM, DEEP, "torch"),
    ],
)
def test_packed_items_do_not_depend_on_padding(
    kind: type[nn.RNNBase], options: dict[str, Any], runtime: str, tmp_path: Path
) -> None:
    """Batches and single items, in PyTorch and in the file, which refuses lengths that are none."""
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
    if runtime == "onnxruntime":
        assert takes_lengths(tmp_path / "model.onnx")
    x = items(2, 9).numpy()
    for wrong in ([9, 40], [-1, 9]):
        with pytest.raises(PetraError):
            session.run({"x": x, "lengths": np.array(wrong)})


@pytest.mark.parametrize("runtime", ["onnxruntime", slow("torch")])
def test_data_of_a_packed_sequence_may_be_computed_with(runtime: str, tmp_path: Path) -> None:
    model = Edited().eval()
    session = exported(model, packed_items([5, 3]), PACKED, tmp_path, runtime)
    for lengths in LENGTHS:
        compare(session, model, packed_items(sorted(lengths, reverse=True)), 1e-5)


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_projections_are_refused_where_there_is_no_operator(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="projections"):
        exported(Projected(), items(2, 5), SERIES, tmp_path, "onnxruntime")


@pytest.mark.slow
def test_pytorch_takes_projections(tmp_path: Path) -> None:
    model = Projected().eval()
    session = exported(model, items(2, 5), SERIES, tmp_path, "torch")
    for n, length in SIZES:
        compare(session, model, items(n, length), 1e-5)


def test_packed_items_of_plain_recurrent_layers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="RNN cannot be traced over packed") as refused:
        exported(Packed(nn.RNN), packed_items([5, 3]), PACKED, tmp_path, "onnxruntime")
    assert "mask" in refused.value.hint
