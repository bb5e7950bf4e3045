"""LSTMs in integers: what the layer computes, and that the file computes the same."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from dynamic_models import run, session, task_of
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from petra.core.errors import StageRefused
from petra.core.interface import BATCH, DICT, LENGTH, TENSOR, Axis, Interface, TensorSpec
from petra.core.target import Target
from petra.core.trial import StageTrace
from petra.methods.base import Context, refusal
from petra.methods.quantize.dynamic import DynamicQuantize
from petra.methods.quantize.quantized_share import DECODED
from petra.methods.quantize.static import StaticQuantize
from petra.model.description.differences import describe, rebuild, weights
from petra.model.layers.dynamic_lstm import DynamicQuantizedLSTM
from petra.model.layers.weight_only import WeightOnlyRecurrent
from petra.model.outline import outline_of
from petra.model.surgery import weight_bytes
from petra.runtimes.onnx_export import export_onnx
from petra.runtimes.table import RUNTIMES, runtime_for
from petra.space.narrow import fix_for_runtime
from petra.tasks.classification import classification

FEATURES, HIDDEN = 10, 32
INTEGERS = DynamicQuantize(recurrent="dynamic")
PLAIN = {"batch_first": True}
DEEP = {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.5}
BARE = {"num_layers": 2, "bidirectional": True, "bias": False}
OPTIONS: tuple[dict[str, Any], ...] = (PLAIN, DEEP, BARE)


STEPS = (Axis(BATCH), Axis(LENGTH, 1, 50, (5, 9)), Axis.fixed(FEATURES))
SERIES = Interface((TensorSpec("input", "float32", STEPS, 0),), structure=TENSOR)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


class Net(nn.Module):
    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM, **options: Any) -> None:
        super().__init__()
        self.rnn = kind(FEATURES, HIDDEN, **options)
        self.head = nn.Linear(HIDDEN * (2 if self.rnn.bidirectional else 1), 20)

    def forward(self, x: Tensor) -> Tensor:
        out = self.rnn(x if self.rnn.batch_first else x.transpose(0, 1))[0]
        logits: Tensor = self.head(out.mean(1 if self.rnn.batch_first else 0))
        return logits


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(FEATURES, HIDDEN, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * HIDDEN, 20)

    def forward(self, x: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        out, (h, c) = self.rnn(packed)
        steps = pad_packed_sequence(out, batch_first=True)[0]
        return {"logits": self.head(torch.cat([h[0], c[1]], 1)), "steps": steps}


def close(got: np.ndarray, expected: Tensor, share: float = 0.01) -> None:
    """A rounding of a state may go the other way, and no more."""
    error = np.sqrt(np.mean((got - expected.numpy()) ** 2))
    assert error < share * float(expected.std())


@pytest.mark.parametrize("options", [slow(PLAIN), slow(DEEP), BARE])
def test_the_file_computes_what_the_layer_does(options: dict[str, Any], tmp_path: Path) -> None:
    model, x = Net(**options).eval(), torch.randn(4, 7, FEATURES)
    with torch.no_grad():
        before = model(x)
    result, trace = run(INTEGERS, copy.deepcopy(model), x)
    assert isinstance(result.rnn, DynamicQuantizedLSTM)
    assert trace.details["formats"] == {"dynamic": 2}
    assert trace.details["share_of_macs_8_bit"] == 1
    path = export_onnx(result, x[:2], tmp_path / "m.onnx", SERIES)
    loaded = session(path)
    with torch.no_grad():
        close(result(x).numpy(), before, 0.2)
        for n, length in ((1, 1), (4, 7), (1, 40), (3, 12)):
            x = torch.randn(n, length, FEATURES)
            close(loaded.run(None, {"input": x.numpy()})[0], result(x))
    kinds = [node.op_type for node in onnx.load(str(path)).graph.node]
    assert kinds.count("DynamicQuantizeLSTM") == model.rnn.num_layers
    assert path.stat().st_size < 0.5 * weight_bytes(model)


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS)
def test_an_archive_holds_it_too(options: dict[str, Any], tmp_path: Path) -> None:
    """No search chooses it for PyTorch, where it is slow; a model may come with it all the same."""
    result, _ = run(INTEGERS, Net(**options).eval(), torch.randn(4, 7, FEATURES))
    runtime = runtime_for(Target("torch"))
    (path,) = runtime.export(result, torch.randn(2, 7, FEATURES), tmp_path / "m.pt2", SERIES)
    loaded = runtime.load(path)
    for n, length in ((1, 1), (4, 7), (3, 12)):
        x = torch.randn(n, length, FEATURES)
        with torch.no_grad():
            np.testing.assert_allclose(
                loaded.run({"input": x.numpy()})["output"], result(x).numpy(), atol=1e-6
            )


def test_packed_items_of_many_lengths(tmp_path: Path) -> None:
    model = Packed().eval()

    def items(lengths: list[int]) -> dict[str, Tensor]:
        x = torch.randn(len(lengths), max(lengths), FEATURES)
        return {"x": x, "lengths": torch.tensor(lengths)}

    example = items([5, 3])
    split = (example, torch.arange(2))
    task = classification(split, split, split)
    result, _ = INTEGERS.apply(model, Context(task=task, teacher=model, seed=0))
    assert isinstance(result.rnn, DynamicQuantizedLSTM)
    specs = (TensorSpec("x", "float32", STEPS, 0), TensorSpec("lengths", "int64", STEPS[:1], 0))
    path = export_onnx(result, example, tmp_path / "m.onnx", Interface(specs, structure=DICT))
    loaded = session(path)
    for lengths in ([1], [4, 4], [2, 9, 1], [30, 3, 17, 8]):
        batch = items(lengths)
        # Zeros behind the ends, which have no part in the range of the inputs.
        inside = torch.arange(max(lengths)) < batch["lengths"].unsqueeze(1)
        batch["x"] *= inside.unsqueeze(2)
        with torch.no_grad():
            expected = result(**batch)
        got = loaded.run(None, {name: value.numpy() for name, value in batch.items()})
        for name, value in zip(("logits", "steps"), got, strict=True):
            close(value, expected[name])
        for item, length in enumerate(lengths):
            with torch.no_grad():
                alone = result(batch["x"][item : item + 1, :length], torch.tensor([length]))
            close(got[0][item], alone["logits"][0], 0.05)


@pytest.mark.parametrize("options", OPTIONS)
def test_all_forms_of_calls_agree(options: dict[str, Any]) -> None:
    result, _ = run(INTEGERS, Net(**options).eval(), torch.randn(4, 7, FEATURES))
    layer = result.rnn
    first = options.get("batch_first", False)
    x = torch.randn(3, 6, FEATURES) if first else torch.randn(6, 3, FEATURES)
    states = layer.num_layers * (2 if layer.bidirectional else 1)
    zeros = torch.zeros(states, 3, HIDDEN)
    packed = pack_padded_sequence(x, [6, 6, 6], batch_first=first)
    with torch.no_grad():
        plain = layer(x)
        given = layer(x, (zeros, zeros))
        out, final = layer(packed)
        alone = layer(x[0] if first else x[:, 0])
        single = layer(x[:1] if first else x[:, :1])
    padded = pad_packed_sequence(out, batch_first=first)[0]
    torch.testing.assert_close(given, plain)
    torch.testing.assert_close((padded, final), plain)
    torch.testing.assert_close(alone[0], single[0].squeeze(0 if first else 1))


def test_gradients_pass_to_inputs_and_biases() -> None:
    model, x = Net(**DEEP).eval(), torch.randn(4, 7, FEATURES)
    result, _ = run(INTEGERS, model, x)
    reference = nn.LSTM(FEATURES, HIDDEN, **DEEP).eval()
    with torch.no_grad():
        for name, value in zip(result.rnn.order, result.rnn._weights(), strict=True):
            reference.get_parameter(name).copy_(value)
    gradients = []
    for layer in (result.rnn, reference):
        leaf = x.clone().requires_grad_()
        layer(leaf)[0].square().sum().backward()
        gradients.append((leaf.grad, layer.get_parameter("bias_hh_l1_reverse").grad))
    for got, expected in zip(*gradients, strict=True):
        assert (got - expected).std() < 0.1 * expected.std()


def test_the_result_can_be_described_and_rebuilt() -> None:
    original, x = Net(**DEEP).eval(), torch.randn(4, 7, FEATURES)
    result, _ = run(INTEGERS, copy.deepcopy(original), x)
    again = rebuild(original, describe(result, original), weights(result)).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(x), result(x), rtol=0, atol=0)


class Mixed(nn.Module):
    """Convolutions beside an LSTM, as LSTM-FCN has them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(FEATURES, 16, 3, padding=1), nn.BatchNorm1d(16)
        self.rnn, self.head = nn.LSTM(FEATURES, HIDDEN, batch_first=True), nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        conv = torch.relu(self.norm(self.conv(x.transpose(1, 2)))).mean(2)
        logits: Tensor = self.head(torch.cat([conv, self.rnn(x)[1][0][-1]], 1))
        return logits


def statically(recurrent: str) -> tuple[Any, StageTrace]:
    model, x = Mixed().eval(), torch.randn(32, 7, FEATURES)
    context = Context(task=task_of(x), teacher=model, seed=0)
    return StaticQuantize(samples=32, recurrent=recurrent).apply(model, context)


def test_static_quantization_has_integers_in_lstms_too() -> None:
    result, trace = statically("dynamic")
    assert any("petra.dynamic_lstm" in str(node.target) for node in result.graph.nodes)
    assert set(trace.touched) == {"rnn", "conv", "head"}
    assert trace.details["share_of_macs_8_bit"] == 1
    assert "rnn" not in trace.skipped


@pytest.mark.slow
def test_files_have_static_integers_and_those_of_lstms(tmp_path: Path) -> None:
    floats, x = weight_bytes(Mixed()), torch.randn(32, 7, FEATURES)
    result, _ = statically("dynamic")
    path = export_onnx(result, x[:2], tmp_path / "m.onnx")
    assert path.stat().st_size < 0.6 * floats
    with torch.no_grad():
        close(session(path).run(None, {"input": x.numpy()})[0], result(x), 0.03)


def test_static_quantization_says_what_decoded_lstms_are() -> None:
    """Codes in store, float arithmetic: both count."""
    _, trace = statically("int8")
    assert set(trace.touched) == {"rnn", "conv", "head"}
    assert "rnn" not in trace.skipped
    assert trace.details["share_of_weights"] > 0.85  # type: ignore[operator]
    lstm = 7 * 4 * HIDDEN * (FEATURES + HIDDEN)
    others = 7 * 16 * 3 * FEATURES + 48 * 3
    assert trace.details["float_macs"] == {DECODED: round(lstm / (lstm + others), 4)}


def test_codes_alone_are_no_kernel() -> None:
    """The rehearsal refuses what the stage does."""
    model, x = Net(**PLAIN).eval(), torch.randn(8, 40, FEATURES)
    stage, task = StaticQuantize(samples=8, recurrent="int8"), task_of(x)
    assert "multiply-accumulates" in refusal(stage, model, task)
    with pytest.raises(StageRefused, match="multiply-accumulates"):
        stage.apply(model, Context(task=task, teacher=model, seed=0))
    assert refusal(StaticQuantize(recurrent="dynamic"), Net(**PLAIN).eval(), task) == ""


# -- where there is no kernel ----------------------------------------------------------------------


def test_a_gru_has_no_kernel() -> None:
    result, trace = run(INTEGERS, Net(nn.GRU, batch_first=True).eval(), torch.randn(4, 7, FEATURES))
    assert isinstance(result.rnn, WeightOnlyRecurrent)
    assert trace.details["formats"] == {"int8": 1, "dynamic": 1}
    card = DynamicQuantize.card(outline_of(Net(nn.GRU)))
    assert "dynamic" not in card.parameter("recurrent").domain.values


class Residual(nn.LSTM):
    """Adds its input to what it puts out."""

    def forward(self, x: Tensor, hx: Any = None) -> Any:
        out, state = super().forward(x, hx)
        return out + x.mean(-1, keepdim=True), state


def test_a_layer_that_does_more_is_left() -> None:
    model, x = Net(Residual, **PLAIN).eval(), torch.randn(4, 7, FEATURES)
    result, trace = run(INTEGERS, model, x)
    assert isinstance(result.rnn, Residual)
    assert "does more" in trace.skipped["rnn"]


def test_other_runtimes_have_no_kernel() -> None:
    x = torch.randn(4, 7, FEATURES)
    context = Context(task=task_of(x), teacher=Net(), seed=0, target=Target("openvino"))
    result, _ = INTEGERS.apply(Net(batch_first=True).eval(), context)
    assert isinstance(result.rnn, WeightOnlyRecurrent)
    for name in RUNTIMES.names():
        kernels = runtime_for(Target(name)).kernels
        for stage in (DynamicQuantize, StaticQuantize):
            card = fix_for_runtime(stage.card(outline_of(Net())), name, kernels)
            found = card.parameter("recurrent")
            assert ("dynamic" in found.domain.values) is (name == "onnxruntime")
            assert found.limits == found.domain
