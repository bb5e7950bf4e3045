"""The low-rank stages on small models: what they take, what they leave and why, and that what they
keep is right.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch
import zoo
from lowrank_nets import TextNet, images
from lowrank_runs import HOW, STAGES, ranks_of, run, task_of, tokens
from torch import Tensor, nn

from petra.methods.lowrank.modules import Factored
from petra.methods.lowrank.stage import RULES
from petra.methods.lowrank.svd import SVDDecompose
from petra.methods.lowrank.tucker import TuckerDecompose
from petra.methods.lowrank.unfold import fold, unfolded_shape
from petra.model.description.differences import describe, rebuild, weights
from petra.model.surgery import count_parameters

stage_case = pytest.mark.parametrize("kind", list(STAGES))


def low_rank(shape: tuple[int, ...], how: str, k: int, seed: int = 0) -> Tensor:
    """A weight whose unfolding has exactly rank k."""
    g = torch.Generator().manual_seed(seed)
    m, n = unfolded_shape(torch.Size(shape), how)
    return fold(
        torch.randn(m, k, generator=g) @ torch.randn(k, n, generator=g) / math.sqrt(k * n),
        torch.Size(shape),
        how,
    )


# --- which layers, and what becomes of them -------------------------------------------------------


@HOW
def test_exactly_low_rank_layers_are_found_and_lose_nothing(how: str) -> None:
    model = zoo.Residual().eval()
    for conv in (model.conv1, model.conv2):
        conv.weight = nn.Parameter(low_rank(tuple(conv.weight.shape), how, 3))
    x = images(4)
    expected, before = model(x), count_parameters(model)
    result, trace = run(
        SVDDecompose(unfold=how, rule="energy", energy=1.0), model, task_of(images, 5)
    )
    ranks = ranks_of(trace)
    assert (ranks["conv1"], ranks["conv2"]) == (3, 3)
    assert trace.touched == tuple(ranks)
    torch.testing.assert_close(result(x), expected, rtol=1e-4, atol=1e-5)
    saved = sum(a - b for a, b in (r["params"] for r in trace.details["layers"].values()))
    assert count_parameters(result) == before - saved


def test_exactly_low_multilinear_rank_is_found_by_tucker() -> None:
    model = zoo.Residual().eval()
    core = torch.randn(4, 3, 3, 3)
    weight = torch.einsum("or,rsyx,is->oiyx", torch.randn(24, 4), core, torch.randn(16, 3)) / 30
    model.conv1.weight = nn.Parameter(weight)
    x = images(4)
    expected = model(x)
    result, trace = run(TuckerDecompose(rule="energy", energy=1.0), model, task_of(images, 5))
    assert trace.details["layers"]["conv1"]["rank"] == [[24, 16], [4, 3]]
    assert [m.kernel_size for m in result.conv1] == [(1, 1), (3, 3), (1, 1)]
    torch.testing.assert_close(result(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
@stage_case
def test_every_rule_with_every_decomposer(kind: str, rule: str) -> None:
    """Acts, saves what the trace says, and keeps the function where the weights are of low rank to
    begin with.
    """
    torch.manual_seed(0)
    model = zoo.Residual().eval()
    how = "spatial" if "spatial" in kind else "channel"
    for conv in (model.conv1, model.conv2):
        conv.weight = nn.Parameter(low_rank(tuple(conv.weight.shape), how, 3))
    values = {
        "ratio": 0.3,
        "energy": 0.999,
        "explained_variance": 0.999,
        "quantile": 0.8,
        "absolute_sum": 0.99,
    }
    value = {rule: values[rule]} if rule in values else {"budget": 0.7}
    stage = STAGES[kind](rule=rule, **value)
    result, trace = run(stage, model, task_of(images, 5))
    assert {"conv1", "conv2"} & set(trace.touched)
    records = trace.details["layers"].values()
    for record in records:
        for before, after in (record["params"], record["macs"]):
            assert after <= 0.95 * before
    assert count_parameters(model) - count_parameters(result) == sum(
        r["params"][0] - r["params"][1] for r in records
    )
    json.dumps(trace.details)
    assert set(trace.touched).isdisjoint(trace.skipped)
    x = images(4)
    assert result(x).shape == model(x).shape
    again = rebuild(model, json.loads(json.dumps(describe(result, model))), weights(result))
    assert torch.equal(again(x), result(x))


def test_layers_that_would_not_save_stay_dense_with_the_reason() -> None:
    model = zoo.Residual().eval()
    model.conv1.weight = nn.Parameter(low_rank(tuple(model.conv1.weight.shape), "channel", 2))
    result, trace = run(SVDDecompose(rule="energy", energy=0.999), model, task_of(images, 5))
    assert trace.touched == ("conv1",)
    assert isinstance(result.conv1, Factored)
    for path in ("stem", "conv2", "head"):  # random weights have flat spectra
        assert "saves too little" in trace.skipped[path]
        assert torch.equal(result.get_submodule(path).weight, model.get_submodule(path).weight)


@pytest.mark.parametrize(
    ("make", "inputs", "layer", "phrase"),
    [
        (zoo.Grouped, images, "g", "grouped"),
        (zoo.Tied, lambda n: zoo.rows(n, 6), "a", "shares a weight with 'b'"),
        (zoo.ManyOutputs, lambda n: zoo.rows(n, 6), "unused", "do not reach it"),
        (lambda: TextNet(tied=True), tokens, "e", "shares a weight with 'out'"),
    ],
)
def test_unsuitable_layers_are_skipped_with_the_reason(
    make: Callable[[], nn.Module], inputs: Callable[[int], Tensor], layer: str, phrase: str
) -> None:
    torch.manual_seed(0)
    model = make().eval()
    result, trace = run(SVDDecompose(ratio=0.2), model, task_of(inputs, 2))
    assert phrase in trace.skipped[layer]
    assert type(result.get_submodule(layer)) is type(model.get_submodule(layer))
    assert trace.touched


class Odd(nn.Module):
    """Layers whose weights are not for replacing: read by attention, by the model, computed,
    bounded, recurrent.
    """

    def __init__(self) -> None:
        super().__init__()
        self.e = nn.Embedding(60, 16, max_norm=1.0)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.read, self.up = nn.Linear(16, 16), nn.Linear(16, 32)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(32, 16))
        self.recurrent, self.o = nn.GRU(16, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.e(ids)
        h, _ = self.attention(h, h, h)
        h = self.normed(torch.relu(self.up(nn.functional.linear(h, self.read.weight))))
        return self.o(self.recurrent(h)[0][:, -1])


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_layers_used_otherwise_than_by_calling_are_left_alone(mode: str) -> None:
    torch.manual_seed(0)
    model = Odd().train(mode == "train")
    result, trace = run(SVDDecompose(ratio=0.2), model, task_of(tokens, 3))
    assert "max_norm" in trace.skipped["e"]
    assert "NonDynamicallyQuantizableLinear" in trace.skipped["attention.out_proj"]
    assert "MultiheadAttention" in trace.skipped["attention"]
    assert "read directly" in trace.skipped["read"]
    assert "computed from other parameters" in trace.skipped["normed"]
    assert "GRU" in trace.skipped["recurrent"]
    assert trace.touched == ("up", "o")
    assert result(tokens(3)).shape == (3, 3)


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_layer_whose_weight_is_read_still_answers(epochs: int) -> None:
    model = TextNet().eval()
    result, trace = run(SVDDecompose(ratio=0.2, epochs=epochs), model, task_of(tokens, 3))
    assert {"e", "a", "o", "out"} == set(trace.touched)
    assert isinstance(result.o, Factored)
    assert isinstance(result.e[0], nn.Embedding)
    assert result.e[0].padding_idx == 0


class Sliced(nn.Module):
    """Reads a setting that no replacement has."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.o = nn.Conv1d(4, 16, 3), nn.Conv1d(16, 16, 3), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        mode = "constant" if self.b.padding_mode == "zeros" else self.b.padding_mode
        return self.o(self.b(nn.functional.pad(h, (self.b.kernel_size[0] - 1, 0), mode)).mean(2))


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_layer_that_must_be_itself_is_put_back(epochs: int) -> None:
    model = Sliced().eval()
    result, trace = run(
        SVDDecompose(ratio=0.2, epochs=epochs), model, task_of(lambda n: zoo.rows(n, 4, 12), 3)
    )
    assert "other than by calling it (AttributeError" in trace.skipped["b"]
    assert type(result.b) is nn.Conv1d
    assert isinstance(result.a, Factored)
