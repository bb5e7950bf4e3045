"""Width pruning of recurrent layers: readers found by trying, cuts that are proved, refusals."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.base import Context
from petra.methods.prune.recurrent import RecurrentPrune
from petra.model.channels.hidden import OUTPUT, readers_of
from petra.model.channels.narrow import without
from petra.model.description.differences import describe, rebuild, weights
from petra.runtimes.table import RUNTIMES
from petra.tasks.classification import classification
from petra.tasks.inputs import call

HIDDEN = 12


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


class Net(nn.Module):
    """A stack in both directions, read in every way that a network reads one."""

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.rnn = kind(5, HIDDEN, batch_first=True, **options)
        directions = 2 if self.rnn.bidirectional else 1
        self.width = directions * HIDDEN
        self.norm = nn.BatchNorm1d(self.width).eval()
        self.conv = nn.Conv1d(self.width, 7, 3, padding=1)
        self.second = nn.LSTM(self.width + 5, 6, batch_first=True)
        self.head = nn.Linear(7 + 6 + HIDDEN, 3)
        nn.init.uniform_(self.norm.running_mean)

    def forward(self, x: Tensor) -> Tensor:
        out, state = self.rnn(x)
        h = state[0] if isinstance(state, tuple) else state
        wide = self.norm(out.transpose(1, 2))
        _, (last, _) = self.second(torch.cat([x, out], 2))
        conv = self.conv(torch.relu(wide)).amax(2)
        logits: Tensor = self.head(torch.cat([conv, last[-1], h[-1].tanh()], 1))
        return logits


OPTIONS = ({}, {"bidirectional": True, "num_layers": 2}, {"bias": False, "num_layers": 2})


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
@pytest.mark.parametrize("options", OPTIONS)
def test_readers_are_found_and_cuts_are_exact(
    kind: type[nn.RNNBase], options: dict[str, Any]
) -> None:
    model, x = Net(kind, **options).eval(), torch.randn(8, 7, 5)
    readers, why = readers_of(model, "rnn", x)
    assert (why, {reader.path for reader in readers}) == ("", {"norm", "conv", "second", "head"})
    of = {reader.path: reader.units.tolist() for reader in readers}
    once = list(range(HIDDEN))
    directions = model.width // HIDDEN
    assert of["conv"] == of["norm"] == once * directions
    assert of["second"] == [-1] * 5 + once * directions
    assert of["head"] == [-1] * 13 + once
    cut, why = without(model, "rnn", readers, [1, 4, 11], x)
    assert why == ""
    assert cut.rnn.hidden_size == HIDDEN - 3
    assert {k: p.shape for k, p in cut.rnn.named_parameters()} == {
        k: p.shape for k, p in kind(5, HIDDEN - 3, batch_first=True, **options).named_parameters()
    }
    assert cut.conv.in_channels == cut.norm.num_features == directions * (HIDDEN - 3)
    assert cut.second.input_size == 5 + directions * (HIDDEN - 3)


def test_a_cut_equals_the_network_with_units_that_say_nothing() -> None:
    """Units whose every weight is zero are always zero: without them nothing changes."""
    model, x = Net(nn.LSTM, bidirectional=True, num_layers=2).eval(), torch.randn(8, 7, 5)
    gone = [0, 3, 7]
    with torch.no_grad():
        for parameter in model.rnn.parameters():
            gates = parameter.view(4, HIDDEN, *parameter.shape[1:])
            gates[:, gone] = 0
        expected = model(x)
        readers, _ = readers_of(model, "rnn", x)
        cut, why = without(model, "rnn", readers, gone, x)
        assert why == ""
        torch.testing.assert_close(cut(x), expected)


def run(model: nn.Module, x: Any, **params: Any) -> tuple[nn.Module, StageTrace]:
    first = next(iter(x.values())) if isinstance(x, dict) else x
    split = (x, torch.arange(len(first)) % 3)
    task = classification(split, split, split)
    return RecurrentPrune(**params).apply(model, Context(task=task, teacher=model, seed=0))


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
def test_the_least_important_units_go(importance: str) -> None:
    model, x = Net(nn.GRU).eval(), torch.randn(8, 7, 5)
    with torch.no_grad():
        for parameter in model.rnn.parameters():
            parameter.view(3, HIDDEN, *parameter.shape[1:])[:, [2, 5, 6, 9]] *= 1e-4
        before = model(x)
    pruned, trace = run(copy.deepcopy(model), x, importance=importance, ratio=0.34, round_to=8)
    assert trace.details["hidden_units"] == {"rnn": [HIDDEN, 8]}
    assert trace.touched[0] == "rnn"
    assert "units rounds to none" in trace.skipped["second"]
    with torch.no_grad():
        assert (pruned(x) - before).abs().max() < 0.05 * before.std()


class PackedNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.GRU(4, 16, batch_first=True, bidirectional=True)
        self.second = nn.LSTM(32, 16, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        out, _ = self.second(self.first(packed)[0])
        steps = pad_packed_sequence(out, batch_first=True)[0]
        logits: Tensor = self.head(steps.sum(1) / lengths.unsqueeze(1))
        return logits


def test_packed_items_are_followed(tmp_path: Path) -> None:
    model = PackedNet().eval()
    inputs = {"x": torch.randn(9, 6, 4), "lengths": torch.tensor([6, 1, 3, 2, 5, 6, 4, 2, 1])}
    original = copy.deepcopy(model)
    pruned, trace = run(model, inputs, ratio=0.5)
    assert trace.details["hidden_units"] == {"first": [16, 8], "second": [16, 8]}
    assert set(trace.touched) == {"first", "second", "head"}
    again = rebuild(original, describe(pruned, original), weights(pruned)).eval()
    with torch.no_grad():
        expected = call(pruned, inputs)
        torch.testing.assert_close(call(again, inputs), expected)
    runtime = RUNTIMES.get("onnxruntime")()
    example = {name: value[:2] for name, value in inputs.items()}
    (path,) = runtime.export(pruned, example, tmp_path / "model.onnx")
    got = runtime.load(path).run({name: value.numpy() for name, value in inputs.items()})
    np.testing.assert_allclose(got["output"], expected.numpy(), atol=1e-5)


# -- what is refused -------------------------------------------------------------------------------


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.norm = nn.GRU(5, 8, batch_first=True), nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.rnn(x)[0][:, -1]))
        return logits


class Returned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(5, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.rnn(x)[0][:, -1]
        logits: Tensor = self.head(out) + out
        return logits


class Viewed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(5, 8, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = self.rnn(x)[1].transpose(0, 1).reshape(-1, 16)
        logits: Tensor = self.head(state)
        return logits


class Seeded(nn.Module):
    """Its first state is a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(5, 8, batch_first=True), nn.Linear(8, 3)
        self.first = nn.Parameter(torch.randn(1, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.rnn(x, self.first.expand(1, len(x), 8).contiguous())[1][-1])
        return logits


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.twin = (nn.GRU(5, 8, batch_first=True) for _ in range(2))
        self.twin.weight_ih_l0 = self.rnn.weight_ih_l0
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        both = [layer(x)[0].mean(1) for layer in (self.rnn, self.twin)]
        logits: Tensor = self.head(torch.cat(both, 1))
        return logits


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Tied, "shares a weight"),
        (Normed, "meet before they reach 'head'"),
        (Returned, OUTPUT),
        (Viewed, "no longer runs"),
        (Seeded, "no longer runs"),
        (lambda: nn.Sequential(nn.Linear(5, 3)), "no recurrent layers"),
    ],
)
def test_reasons(kind: Any, why: str) -> None:
    model, x = kind().eval(), torch.randn(8, 6, 5)
    with pytest.raises(StageRefused) as refused:
        run(model, x, ratio=0.5, round_to=1)
    assert why in str(refused.value)
