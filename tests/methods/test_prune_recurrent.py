"""Width pruning of recurrent layers: readers found by trying, cuts that are proved, refusals."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recurrent_parts import (
    HIDDEN,
    Clipped,
    Lone,
    Net,
    Normed,
    PackedNet,
    Picky,
    Returned,
    Seeded,
    Tied,
    Viewed,
)
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.base import Context
from petra.methods.prune.recurrent import RecurrentPrune
from petra.methods.prune.zeros import two_of_four_mask, zero_out
from petra.model.channels.hidden import OUTPUT, readers_of
from petra.model.channels.narrow import without
from petra.model.description.differences import describe, rebuild, weights
from petra.runtimes.table import RUNTIMES
from petra.tasks.classification import classification
from petra.tasks.inputs import call


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


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


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
def test_a_cut_equals_the_network_with_units_that_say_nothing(kind: type[nn.RNNBase]) -> None:
    """Units whose every weight is zero are always zero: without them nothing changes."""
    model, x = Net(kind, bidirectional=True, num_layers=2).eval(), torch.randn(8, 7, 5)
    gone = [0, 3, 7]
    with torch.no_grad():
        for parameter in model.rnn.parameters():
            gates = parameter.view(-1, HIDDEN, *parameter.shape[1:])
            gates[:, gone] = 0
        expected = model(x)
        readers, _ = readers_of(model, "rnn", x)
        cut, why = without(model, "rnn", readers, gone, x)
        assert why == ""
        torch.testing.assert_close(cut(x), expected)


@pytest.mark.parametrize("path", ["conv", "second", "head"])
def test_a_wrong_reading_is_noticed(path: str) -> None:
    model, x = Net(nn.GRU).eval(), torch.randn(8, 7, 5)
    readers, _ = readers_of(model, "rnn", x)
    turned = {r.path: torch.where(r.units < 0, -1, (r.units + 1) % HIDDEN) for r in readers}
    wrong = [replace(r, units=turned[path]) if r.path == path else r for r in readers]
    same, why = without(model, "rnn", wrong, [1, 4], x)
    assert same is model
    assert "does not keep its channels in place" in why


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
    assert not trace.skipped, "the other layer has lost inputs"
    assert "units rounds to none" in trace.details["outputs_kept"]["second"]  # type: ignore[index]
    with torch.no_grad():
        assert (pruned(x) - before).abs().max() < 0.05 * before.std()


def packed_items() -> dict[str, Tensor]:
    return {"x": torch.randn(9, 6, 4), "lengths": torch.tensor([6, 1, 3, 2, 5, 6, 4, 2, 1])}


def test_packed_items_are_followed() -> None:
    model, inputs = PackedNet().eval(), packed_items()
    original = copy.deepcopy(model)
    pruned, trace = run(model, inputs, ratio=0.5)
    assert trace.details["hidden_units"] == {"first": [16, 8], "second": [16, 8]}
    assert set(trace.touched) == {"first", "second", "head"}
    again = rebuild(original, describe(pruned, original), weights(pruned)).eval()
    with torch.no_grad():
        expected = call(pruned, inputs)
        torch.testing.assert_close(call(again, inputs), expected)


@pytest.mark.slow
def test_narrower_layers_over_packed_items_ship(tmp_path: Path) -> None:
    inputs = packed_items()
    pruned, _ = run(PackedNet().eval(), inputs, ratio=0.5)
    with torch.no_grad():
        expected = call(pruned, inputs)
    runtime = RUNTIMES.get("onnxruntime")()
    example = {name: value[:2] for name, value in inputs.items()}
    (path,) = runtime.export(pruned, example, tmp_path / "model.onnx")
    got = runtime.load(path).run({name: value.numpy() for name, value in inputs.items()})
    np.testing.assert_allclose(got["output"], expected.numpy(), atol=1e-5)


def test_no_rectifier_hides_a_unit() -> None:
    readers, why = readers_of(Clipped().eval(), "rnn", torch.randn(2, 3, 5))
    assert why == ""
    assert readers[0].units.tolist() == list(range(256))


def test_readers_may_have_no_batch() -> None:
    model, x = Lone().eval(), torch.randn(3, 7, 5)
    readers, why = readers_of(model, "rnn", x)
    assert why == ""
    assert {reader.path for reader in readers} == {"conv", "head"}
    assert all(reader.units.tolist() == [*range(8)] for reader in readers)
    assert without(model, "rnn", readers, [0, 5], x)[1] == ""


def test_zeros_that_are_two_of_four_are_so_again() -> None:
    model, x = Net(nn.GRU).eval(), torch.randn(8, 7, 5)
    layer = model.conv
    layer.keep_zeros = "two_of_four"
    zero_out(layer, two_of_four_mask(layer, layer.weight.detach().abs()))
    pruned, trace = run(model, x, ratio=0.34, round_to=4)
    assert trace.details["hidden_units"]["rnn"] == [HIDDEN, 8]  # type: ignore[index]
    assert "conv" in trace.details["two_of_four_again"]  # type: ignore[operator]
    kept = pruned.conv.weight.movedim(1, -1).reshape(-1, 4)
    assert ((kept != 0).sum(1) <= 2).all()
    with pytest.raises(StageRefused, match="no multiple of 4"):
        run(model, x, ratio=0.25, round_to=1)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Tied, "shares a weight"),
        (Picky, "does not run with other states"),
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
