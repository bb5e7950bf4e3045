"""The low-rank stages on small models: what they take, what they leave and why, and that what they
keep is right.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.base import Context
from petra.methods.lowrank.cur import CURDecompose
from petra.methods.lowrank.factorize import svd
from petra.methods.lowrank.modules import Factored, TrainableFactors
from petra.methods.lowrank.stage import RULES, Decompose
from petra.methods.lowrank.svd import SVDDecompose, _Truncation
from petra.methods.lowrank.truncation_cost import prediction_distances
from petra.methods.lowrank.tucker import TuckerDecompose
from petra.methods.lowrank.unfold import fold, unfold, unfolded_shape
from petra.methods.prune.structured import StructuredPrune
from petra.model.description.differences import describe, rebuild, weights
from petra.model.surgery import count_parameters, layer_shapes, replace_module
from petra.runtimes.onnxruntime import OnnxRuntime
from petra.space.effects import DENSE_WEIGHTS, INITIAL_FACTS
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.training.loop import predict
from petra.workloads.cifar10 import pretrained

HOW = pytest.mark.parametrize("how", ["channel", "spatial"])
STAGES: dict[str, Callable[..., Decompose]] = {
    "svd": SVDDecompose,
    "svd spatial in three": lambda **p: SVDDecompose(unfold="spatial", layers=3, **p),
    "randomized": lambda **p: SVDDecompose(decomposer="randomized", **p),
    "whitened": lambda **p: SVDDecompose(decomposer="whitened", samples=32, **p),
    "cur": CURDecompose,
    "tucker": TuckerDecompose,
}
stage_case = pytest.mark.parametrize("kind", list(STAGES))


def task_of(inputs: Callable[[int], Tensor], classes: int) -> Task:
    def split(n: int) -> tuple[Tensor, Tensor]:
        return inputs(n), torch.arange(n) % classes

    return classification(split(40), split(8), split(8))


def context_of(model: nn.Module, task: Task) -> Context:
    return Context(task=task, teacher=model, seed=0)


def run(stage: Decompose, model: nn.Module, task: Task) -> tuple[nn.Module, StageTrace]:
    return stage.apply(copy.deepcopy(model), context_of(model, task))


def images(n: int) -> Tensor:
    return zoo.images(n)


def features(n: int) -> Tensor:
    return zoo.rows(n, 10)


def tokens(n: int) -> Tensor:
    return torch.randint(0, 60, (n, 5), generator=torch.Generator().manual_seed(n))


def low_rank(shape: tuple[int, ...], how: str, k: int, seed: int = 0) -> Tensor:
    """A weight whose unfolding has exactly rank k."""
    g = torch.Generator().manual_seed(seed)
    m, n = unfolded_shape(torch.Size(shape), how)
    return fold(
        torch.randn(m, k, generator=g) @ torch.randn(k, n, generator=g) / math.sqrt(k * n),
        torch.Size(shape),
        how,
    )


def ranks_of(trace: StageTrace) -> dict[str, int]:
    return {path: record["rank"][1] for path, record in trace.details["layers"].items()}


class TextNet(nn.Module):
    """An embedding and a layer whose weight is read for its type."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.e = nn.Embedding(60, 24, padding_idx=0)
        self.a, self.o = nn.Linear(24, 32), nn.Linear(32, 24)
        self.out = nn.Linear(24, 60, bias=False)
        if tied:
            self.out.weight = self.e.weight

    def forward(self, ids: Tensor) -> Tensor:
        h = torch.relu(self.a(self.e(ids).mean(1)))
        return self.out(self.o(h.to(self.o.weight.dtype)))


class Volume(nn.Module):
    """3-D, transposed and 1-D convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.up = nn.Conv3d(1, 12, 3, padding=1), nn.ConvTranspose2d(12, 16, 4, 2)
        self.line, self.o = nn.Conv1d(16, 20, 5), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.up(torch.relu(self.a(x)).mean(2)))
        return self.o(torch.relu(self.line(h.flatten(2))).mean(2))


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


def test_three_dimensional_and_transposed_convolutions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Volume().eval()
    task = task_of(lambda n: zoo.rows(n, 1, 3, 5, 6), 3)
    result, trace = run(SVDDecompose(ratio=0.2), model, task)
    assert set(trace.touched) == {"a", "up", "line", "o"}
    assert [type(m) for m in result.up] == [nn.Conv2d, nn.ConvTranspose2d]
    x = task.example(4)
    (path,) = OnnxRuntime().export(result, task.example(2), tmp_path / "model.onnx")
    (got,) = OnnxRuntime().load(path).run({"input": x.numpy()}).values()
    np.testing.assert_allclose(got, result(x).detach().numpy(), rtol=1e-3, atol=1e-4)
    for how in ({"unfold": "spatial"}, {"decomposer": "whitened", "samples": 32}):
        by_channel, _ = run(SVDDecompose(ratio=0.2, **how), model, task)
        assert [m.kernel_size for m in by_channel.a] == [(3, 3, 3), (1, 1, 1)]
    _, whitened = run(SVDDecompose(decomposer="whitened", samples=32, ratio=0.2), model, task)
    assert "overlap" in whitened.skipped["up"]
    _, tucker = run(TuckerDecompose(ratio=0.2), model, task)
    assert set(tucker.touched) == {"a", "up", "line", "o"}


def test_text_ships_with_a_thin_embedding(tmp_path: Path) -> None:
    model = TextNet().eval()
    task = task_of(tokens, 3)
    result, _ = run(SVDDecompose(ratio=0.3, layers=3), model, task)
    (path,) = OnnxRuntime().export(result, task.example(2), tmp_path / "model.onnx")
    x = tokens(4)
    (got,) = OnnxRuntime().load(path).run({"input": x.numpy()}).values()
    np.testing.assert_allclose(got, result(x).detach().numpy(), rtol=1e-3, atol=1e-4)
    # The weight that the model reads for its type is not composed in the file.
    assert path.stat().st_size < 4 * count_parameters(result) + 12_000
    _, without = run(SVDDecompose(ratio=0.3, embeddings=False), model, task)
    assert "embeddings are left" in without.skipped["e"]


def test_refuses_when_nothing_saves() -> None:
    model = zoo.mlp()
    for stage in (SVDDecompose(ratio=0.9), SVDDecompose(rule="energy", energy=0.9999)):
        with pytest.raises(StageRefused, match="no layer becomes cheaper") as refusal:
            run(stage, model, task_of(features, 3))
        assert "saves too little" in refusal.value.hint


@pytest.mark.parametrize("kind", ["svd", "randomized", "whitened", "cur", "tucker"])
def test_one_layer_lowers_the_ranks_where_several_would_save(kind: str) -> None:
    """It computes what they compute, and the trace claims none of their savings."""
    torch.manual_seed(0)
    model, task = zoo.Residual().eval(), task_of(images, 5)
    several = 3 if kind == "tucker" else 2
    one, trace = run(STAGES[kind](ratio=0.3, layers=1), model, task)
    thin, other = run(STAGES[kind](ratio=0.3, layers=several), model, task)
    assert trace.touched == other.touched
    assert ranks_of(trace) == ranks_of(other)
    assert count_parameters(one) == count_parameters(model) > count_parameters(thin)
    assert all(type(one.get_submodule(p)) is type(model.get_submodule(p)) for p in trace.touched)
    torch.testing.assert_close(one(images(4)), thin(images(4)), rtol=1e-4, atol=1e-5)
    for path, record in trace.details["layers"].items():
        dense = model.get_submodule(path).weight.numel()
        assert record["params"] == [dense, dense] != other.details["layers"][path]["params"]
        assert record["macs"] == [other.details["layers"][path]["macs"][0]] * 2


@pytest.mark.parametrize("stage", [SVDDecompose, CURDecompose, TuckerDecompose])
def test_one_layer_may_be_drawn_and_keeps_no_budget(stage: type[Decompose]) -> None:
    generator = np.random.default_rng(0)
    drawn = {stage.card().sample(generator).params["layers"] for _ in range(50)}
    assert drawn == ({1, 3} if stage is TuckerDecompose else {1, 2, 3})
    with pytest.raises(StageRefused, match="no budget is kept"):
        run(stage(rule="budget", layers=1), zoo.mlp(), task_of(features, 3))


# --- what a budget and activations are worth ------------------------------------------------------


def test_distances_are_those_of_models_changed_by_hand() -> None:
    torch.manual_seed(0)
    model, x = zoo.mlp().eval(), features(6)
    new = {"0": [torch.zeros(32, 10), model[0].weight.detach() * 0.9], "2": [torch.randn(24, 32)]}
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = prediction_distances(
        model, [x[:4], x[4:]], {p: [lambda w=w: w for w in ws] for p, ws in new.items()}
    )
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    reference = model(x).detach().double()
    for path, options in new.items():
        for weight, distance in zip(options, found[path], strict=True):
            changed = copy.deepcopy(model)
            changed.get_submodule(path).weight = nn.Parameter(weight)
            moved = (changed(x).detach().double() - reference).square().sum()
            assert distance == pytest.approx(
                float(moved / (reference - reference.mean()).square().sum()), rel=1e-4
            )
    nan = prediction_distances(model, [x], {"0": [lambda: torch.full((32, 10), float("nan"))]})
    assert nan == {"0": [math.inf]}


@pytest.mark.parametrize("axis", ["params", "macs"])
@pytest.mark.parametrize("budget", [0.6, 0.8])
def test_a_budget_is_kept_and_well_spent(
    digits_problem: tuple[nn.Module, Task], axis: str, budget: float
) -> None:
    """Within the budget over the layers that can be decomposed, and much nearer to the model than
    any one ratio for all within it; inverted sensitivities would be farther.
    """
    model, task = digits_problem
    result, trace = run(SVDDecompose(rule="budget", budget=budget, budget_of=axis), model, task)
    eligible = run(SVDDecompose(ratio=0.05), model, task)[1].touched
    shapes = layer_shapes(model, lambda m: m(task.example(1)))

    def dense(path: str) -> int:
        weight = model.get_submodule(path).weight
        positions = math.prod(shapes[path][0][1][2:]) if weight.ndim == 4 else 1
        return weight.numel() * (positions if axis == "macs" else 1)

    records = trace.details["layers"]
    total = sum(map(dense, eligible))
    spent = sum(records[p][axis][1] if p in records else dense(p) for p in eligible)
    assert 0.6 * budget * total < spent <= budget * total
    assert all("budget" in trace.skipped[p] for p in eligible if p not in records)

    def distance(other: nn.Module) -> float:
        reference = predict(model, task.val)[0]
        return float((predict(other, task.val)[0] - reference).square().mean())

    uniform = []
    for percent in range(5, 95, 3):
        try:
            other, t = run(SVDDecompose(ratio=percent / 100), model, task)
        except StageRefused:
            break
        r = t.details["layers"]
        if sum(r[p][axis][1] if p in r else dense(p) for p in eligible) <= budget * total:
            uniform.append(distance(other))
    assert distance(result) < 0.7 * min(uniform)


def test_a_budget_out_of_reach_says_what_is_within() -> None:
    with pytest.raises(StageRefused, match="out of reach") as refusal:
        run(SVDDecompose(rule="budget", budget=0.01), zoo.mlp(), task_of(features, 3))
    assert "at least 0." in refusal.value.hint


def test_activations_beat_weights_on_a_trained_model(
    digits_problem: tuple[nn.Module, Task],
) -> None:
    model, task = digits_problem

    def error(decomposer: str) -> float:
        result, _ = run(SVDDecompose(ratio=0.5, decomposer=decomposer), model, task)
        return float((predict(result, task.val)[0] - predict(model, task.val)[0]).square().mean())

    plain = error("svd")
    assert error("whitened") < 0.8 * plain
    assert 0.8 * plain < error("randomized") < 1.25 * plain


# --- training in decomposed form ------------------------------------------------------------------


def test_training_steepens_spectra_and_keeps_factors_orthogonal(
    digits_problem: tuple[nn.Module, Task],
) -> None:
    """Each penalty, against training without it, does to the model what it is there for."""
    model, task = digits_problem

    def train(**weights: float) -> tuple[nn.Module, dict[str, float]]:
        stage = SVDDecompose(rule="energy", energy=0.9, epochs=4, lr=0.05, **weights)
        result, trace = run(stage, model, task)
        assert not any(isinstance(m, TrainableFactors) for m in result.modules())
        assert not result._forward_pre_hooks
        return result, trace.details["training"]

    plain, without = train(orthogonality=0.0, hoyer=0.0)
    thin, sparse = train(orthogonality=0.0, hoyer=20.0)
    _, straight = train(orthogonality=30.0, hoyer=0.0)
    assert sparse["hoyer"] < 0.95 * without["hoyer"]
    assert count_parameters(thin) < count_parameters(plain)
    assert straight["orthogonality"] < 0.7 * without["orthogonality"]


@pytest.mark.parametrize("rule", ["ratio", "energy", "quantile", "budget"])
def test_the_score_in_training_is_that_of_the_truncated_model(
    digits_problem: tuple[nn.Module, Task], rule: str
) -> None:
    """The epoch kept is chosen by what ships: its score is the result's own, not that at full
    rank.
    """
    model, task = digits_problem
    stage = SVDDecompose(
        rule=rule, ratio=0.15, energy=0.6, quantile=0.8, budget=0.35, epochs=2, lr=0.003
    )
    result, trace = run(stage, model, task)
    best = trace.details["training"]["rounds"][-1]["score_best"]
    assert task.score(*predict(result, task.val)).mean == pytest.approx(best, abs=1e-3)
    assert (
        best < task.score(*predict(model, task.val)).mean
    )  # at full rank it would not have fallen


def test_truncation_every_few_epochs_trains_ever_thinner_factors(
    digits_problem: tuple[nn.Module, Task],
) -> None:
    model, task = digits_problem
    widths: list[dict[str, int]] = []

    def watch(done: int, total: int, note: str) -> None:
        if done == 1:
            widths.append(
                {p: len(m.s) for p, m in live.named_modules() if isinstance(m, TrainableFactors)}
            )

    stage = SVDDecompose(ratio=0.3, epochs=5, truncate_every=2, lr=0.03)
    live = copy.deepcopy(model)
    context = Context(task=task, teacher=model, seed=0, progress=watch)
    result, trace = stage.apply(live, context)
    rounds = trace.details["training"]["rounds"]
    assert [r["epochs"] for r in rounds] == [2, 2, 1]
    full, thin, last = widths
    ranks = ranks_of(trace)
    assert (
        {p: thin[p] for p in ranks} == ranks == {p: last[p] for p in ranks}
    )  # a ratio is of the full rank
    assert all(full[p] > thin[p] for p in ranks)
    # What has trained as it ships is far better than what was cut at the end only.
    once, _ = run(dataclasses.replace(stage, truncate_every=0), model, task)
    assert (
        task.score(*predict(result, task.val)).mean
        > task.score(*predict(once, task.val)).mean + 0.2
    )


def test_truncation_keeps_the_largest_values() -> None:
    """And leaves alone what would not save."""
    torch.manual_seed(0)
    wide, thin = nn.Linear(20, 20), nn.Linear(20, 2)
    trained = {"wide": TrainableFactors(wide, "channel"), "thin": TrainableFactors(thin, "channel")}
    calls = {p: ((torch.Size((2, 20)), torch.Size((2, m.shape[0]))),) for p, m in trained.items()}
    _Truncation(trained, calls, 2, lambda parts: dict.fromkeys(parts, (2,))).apply()
    expected = svd(wide.weight.detach()).truncate(2)
    torch.testing.assert_close(
        trained["wide"].weight.detach(), expected.compose(), rtol=1e-4, atol=1e-5
    )
    assert [len(m.s) for m in trained.values()] == [2, 2]
    torch.testing.assert_close(
        trained["thin"].weight.detach(), thin.weight.detach(), rtol=1e-4, atol=1e-5
    )
    model = nn.Sequential(trained["wide"]).eval()
    _Truncation({"0": trained["wide"]}, {"0": calls["wide"]}, 2, lambda parts: {"0": (1,)}).preview(
        model, ()
    )
    torch.testing.assert_close(
        trained["wide"].preview, expected.truncate(1).compose(), rtol=1e-4, atol=1e-5
    )


def test_epochs_that_train_nothing_are_said_to() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.e = nn.Embedding(60, 24)

        def forward(self, ids: Tensor) -> Tensor:
            return self.e(ids).mean(1)

    model, task = Bag().eval(), task_of(tokens, 24)
    _, trace = run(SVDDecompose(ratio=0.2, epochs=2), model, task)
    assert trace.touched == ("e",)
    assert "for 2 epochs: embeddings do not" in trace.details["not_trained"]
    assert "training" not in trace.details
    _, untrained = run(SVDDecompose(ratio=0.2), model, task)
    assert "not_trained" not in untrained.details


def test_training_is_reproducible(digits_problem: tuple[nn.Module, Task]) -> None:
    model, task = digits_problem
    stage = SVDDecompose(ratio=0.3, epochs=2, truncate_every=1)
    first, second = (run(stage, model, task)[0] for _ in range(2))
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())


# --- among other stages ---------------------------------------------------------------------------


def test_effects_and_parameters() -> None:
    for stage in (SVDDecompose, CURDecompose, TuckerDecompose):
        effects = stage.effects
        assert not effects.objection(INITIAL_FACTS)
        assert effects.objection(effects.after(INITIAL_FACTS))  # not twice
        assert effects.objection(INITIAL_FACTS - {DENSE_WEIGHTS})  # zeros would not survive
        assert not StructuredPrune.effects.objection(effects.after(INITIAL_FACTS))
        card = stage.card()
        for rule in RULES:
            assert {p for p in RULES if p in card.normalize({"rule": rule}).params} == {rule}
        generator = np.random.default_rng(0)
        for _ in range(20):
            spec = card.sample(generator)
            assert card.normalize(vars(stage.from_spec(spec))) == spec
    card = SVDDecompose.card()
    assert set(card.normalize({"epochs": 0}).params) == {
        "decomposer", "unfold", "layers", "rule", "ratio", "embeddings", "epochs",
    }  # fmt: skip
    assert {"lr", "orthogonality", "hoyer", "truncate_every"} <= set(
        card.normalize({"epochs": 2}).params
    )
    assert set(card.normalize({"decomposer": "whitened", "epochs": 2}).params) == {
        "decomposer", "samples", "layers", "rule", "ratio", "embeddings",
    }  # fmt: skip


@HOW
def test_a_decomposed_network_can_still_be_pruned(
    how: str, digits_problem: tuple[nn.Module, Task]
) -> None:
    model, task = digits_problem
    thin, trace = run(SVDDecompose(unfold=how, ratio=0.3), model, task)
    pruned, cuts = StructuredPrune(ratio=0.3, round_to=1).apply(
        copy.deepcopy(thin), context_of(model, task)
    )
    assert count_parameters(pruned) < count_parameters(thin) < count_parameters(model)
    inner = {f"{path}.0" for path in trace.touched}
    assert inner & set(cuts.details["channels"])  # ranks are channels too
    assert pruned(task.example(3)).shape == (3, 10)
    for path in trace.touched:  # and the composed weight follows
        module = pruned.get_submodule(path)
        assert module.weight.shape[0] == getattr(
            module[-1], "out_channels", getattr(module[-1], "out_features", 0)
        )


def test_replace_module_refuses_what_is_not_there() -> None:
    with pytest.raises(AttributeError):
        replace_module(zoo.mlp(), "9", nn.Identity())


@HOW
def test_resnet20(how: str, data_root: Path) -> None:
    model = pretrained("resnet20", data_root / "weights" / "resnet20.pt")
    inputs = lambda n: zoo.images(n, 32)  # noqa: E731
    result, trace = run(
        SVDDecompose(unfold=how, rule="energy", energy=0.9), model, task_of(inputs, 10)
    )
    assert len(trace.touched) >= 18

    def macs(net: nn.Module) -> int:
        shapes = layer_shapes(net, lambda m: m(inputs(1)))
        weighted = {p: m for p, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        return sum(
            m.weight[0].numel() * math.prod(out[1:])
            for p, m in weighted.items()
            for _, out in shapes[p]
        )

    saved = [r["macs"] for r in trace.details["layers"].values()]
    assert macs(model) - macs(result) == sum(a - b for a, b in saved) > 0
    assert count_parameters(result) < 0.8 * count_parameters(model)


def test_unfolding_survives_a_round_trip_through_the_stage() -> None:
    """At (nearly) full rank the result is the model: nothing is transposed, dropped or doubled on
    the way.
    """
    torch.manual_seed(0)
    model = Volume().eval()
    for path in ("a", "up", "line"):
        layer = model.get_submodule(path)
        how = "transposed" if path == "up" else "channel"
        W = unfold(layer.weight.detach(), how)
        layer.weight = nn.Parameter(fold(svd(W).truncate(2).compose(), layer.weight.shape, how))
    x = zoo.rows(3, 1, 3, 5, 6)
    for kind in ("svd", "randomized", "cur"):
        stage = STAGES[kind](rule="energy", energy=1.0)
        result, trace = run(stage, model, task_of(lambda n: zoo.rows(n, 1, 3, 5, 6), 3))
        assert {p: r for p, r in ranks_of(trace).items() if p != "o"} == {
            "a": 2,
            "up": 2,
            "line": 2,
        }
        torch.testing.assert_close(result(x), model(x), rtol=1e-3, atol=1e-4)
