"""Low-rank decomposition: factors against the layers they replace, rules by scanning, penalties by formula."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.methods.base import Context
from petra.methods.lowrank import losses
from petra.methods.lowrank.factorize import (
    Factors,
    dense_cost,
    factored_cost,
    fold,
    fold_factors,
    rank_by_energy,
    rank_by_ratio,
    saves,
    svd,
    unfold,
    unfolded_shape,
)
from petra.methods.lowrank.modules import TrainableFactors, factored
from petra.methods.lowrank.svd import SVDDecompose
from petra.methods.prune.structured import StructuredPrune
from petra.model.surgery import count_parameters, layer_shapes, replace_module
from petra.space.effects import INITIAL_FACTS
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.workloads.cifar10 import pretrained

HOW = pytest.mark.parametrize("how", ["channel", "spatial"])
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(7, 5), (7,)),
    "linear on sequences": (lambda: nn.Linear(7, 5, bias=False), (4, 7)),
    "conv": (lambda: nn.Conv2d(3, 5, 3, padding=1), (3, 8, 9)),
    "uneven conv": (lambda: nn.Conv2d(4, 6, (5, 2), (2, 3), (2, 1), (1, 2), bias=False), (4, 11, 13)),
    "same padding": (lambda: nn.Conv2d(3, 5, (3, 4), padding="same", dilation=(2, 1)), (3, 8, 9)),
    "reflected": (lambda: nn.Conv2d(3, 5, (3, 5), padding=(1, 2), padding_mode="reflect"), (3, 8, 9)),
    "circular": (lambda: nn.Conv2d(3, 5, 3, padding=(1, 1), padding_mode="circular"), (3, 8, 9)),
    "1-D": (lambda: nn.Conv1d(4, 6, 5, stride=2, padding=2, dilation=2), (4, 21)),
}
layer_case = pytest.mark.parametrize("case", list(LAYERS))


def build(case: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    make, shape = LAYERS[case]
    return make(), torch.randn(2, *shape)


def task_of(inputs: Callable[[int], Tensor], classes: int) -> Task:
    def split(n: int) -> tuple[Tensor, Tensor]:
        return inputs(n), torch.arange(n) % classes

    return classification(split(40), split(8), split(8))


def context_of(model: nn.Module, task: Task) -> Context:
    return Context(task=task, teacher=model, seed=0)


def low_rank(shape: tuple[int, ...], how: str, k: int, seed: int = 0) -> Tensor:
    """A weight whose unfolding has exactly rank k."""
    g = torch.Generator().manual_seed(seed)
    m, n = unfolded_shape(torch.Size(shape), how)
    return fold(
        torch.randn(m, k, generator=g) @ torch.randn(k, n, generator=g) / math.sqrt(k * n), torch.Size(shape), how
    )


# --- the mathematics -------------------------------------------------------------------------------------------------


@HOW
@layer_case
def test_full_rank_factors_compute_the_same_function(case: str, how: str) -> None:
    layer, x = build(case)
    pair = factored(layer, svd(unfold(layer.weight.detach(), how)), how)
    torch.testing.assert_close(pair(x), layer(x), rtol=1e-4, atol=1e-5)
    assert [type(m) for m in pair] == [type(layer)] * 2
    assert pair[0].bias is None
    assert (pair[1].bias is None) == (layer.bias is None)


@HOW
@layer_case
def test_truncated_factors_compute_what_the_composed_weight_does(case: str, how: str) -> None:
    layer, x = build(case)
    factors = svd(unfold(layer.weight.detach(), how)).truncate(2)
    dense = copy.deepcopy(layer)
    dense.weight = nn.Parameter(fold(factors.compose(), layer.weight.shape, how))
    torch.testing.assert_close(factored(layer, factors, how)(x), dense(x), rtol=1e-4, atol=1e-5)
    assert float((dense(x) - layer(x)).detach().abs().max()) > 1e-3  # truncation did something


@HOW
@layer_case
def test_trainable_module_starts_as_the_layer_and_ends_as_it(case: str, how: str) -> None:
    layer, x = build(case)
    expected = layer(x).detach()
    module = TrainableFactors(copy.deepcopy(layer), how)
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)
    module(x).square().sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in (module.U, module.s, module.V))
    names = {name for name, _ in module.named_parameters()}
    assert names == {"U", "s", "V"} | ({"bias"} if layer.bias is not None else set())  # the dense weight does not train
    torch.testing.assert_close(module.as_dense()(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 3, 2, 4), (6, 2, 5), (4, 7)])
def test_spatial_unfolding_by_index(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape)
    W = unfold(weight, "spatial")
    if len(shape) == 2:
        assert torch.equal(W, weight)
    else:
        out, inside, kh, kw = (*shape, 1)[:4]
        view = weight.reshape(out, inside, kh, kw)
        for o in range(out):
            for i in range(inside):
                for y in range(kh):
                    for x in range(kw):
                        assert W[o * kh + y, i * kw + x] == view[o, i, y, x]
    assert tuple(W.shape) == unfolded_shape(torch.Size(shape), "spatial")
    assert torch.equal(fold(W, torch.Size(shape), "spatial"), weight)


def test_svd_is_sorted_orthonormal_and_optimal() -> None:
    W = torch.randn(9, 6)
    f = svd(W)
    assert torch.all(f.s[:-1] >= f.s[1:])
    torch.testing.assert_close(f.compose(), W)
    torch.testing.assert_close(f.U.T @ f.U, torch.eye(6), atol=1e-5, rtol=0)
    for k in range(1, 6):  # Eckart-Young: the error is the energy left out, and no random rank-k matrix beats it
        error = float((W - f.truncate(k).compose()).norm())
        assert error == pytest.approx(float(f.s[k:].norm()), rel=1e-4)
        A = torch.randn(9, k)
        assert error <= float((W - A @ torch.linalg.lstsq(A, W).solution).norm()) + 1e-5


def test_split_balances_the_factors() -> None:
    f = svd(torch.randn(9, 6) * 100)
    A, B = f.split()
    torch.testing.assert_close(A @ B, f.compose())
    assert float(A.norm()) == pytest.approx(float(B.norm()), rel=1e-4)
    first, last = fold_factors(A, B, torch.Size((9, 6)), "channel")
    assert (first.shape, last.shape) == ((6, 6), (9, 6))


@pytest.mark.parametrize("seed", range(30))
def test_energy_rule_is_the_smallest_sufficient_rank(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    s = torch.rand(12, generator=g).pow(3).sort(descending=True).values
    for tau in (0.01, 0.5, 0.9, 0.99, 1.0):
        squares = [float(v) ** 2 for v in s.double()]
        sufficient = [k for k in range(1, 13) if sum(squares[:k]) >= tau * sum(squares) * (1 - 1e-12)]
        assert rank_by_energy(s, tau) == sufficient[0]


def test_energy_rule_is_not_inverted() -> None:
    """One dominant value of ten holds nearly all energy: rank 1, where the inverted rule (keep N - k) says 9."""
    s = torch.tensor([10.0] + [0.1] * 9)
    assert rank_by_energy(s, 0.9) == 1
    assert rank_by_energy(torch.ones(10), 0.9) == 9
    assert rank_by_energy(torch.zeros(4), 0.9) == 1
    assert rank_by_energy(torch.tensor([1.0, 0.0, 0.0]), 1.0) == 1


def test_ratio_rule() -> None:
    assert [rank_by_ratio(torch.ones(10), r) for r in (0.01, 0.25, 0.5, 1.0)] == [1, 3, 5, 10]


@HOW
@layer_case
def test_costs_against_the_modules_and_a_count_of_products(case: str, how: str) -> None:
    """Weights against the real modules; multiply-accumulates from the shapes that really flow through them."""
    layer, x = build(case)
    shape, k = layer.weight.shape, 2
    calls = ((x.shape, layer(x).shape),)

    def macs(module: nn.Module, output: Tensor) -> int:
        return module.weight[0].numel() * output[0].numel()

    pair = factored(layer, svd(unfold(layer.weight.detach(), how)).truncate(k), how)
    middle = pair[0](x)
    cost, dense = factored_cost(shape, k, how, calls), dense_cost(shape, calls)
    assert (dense.params, dense.macs) == (layer.weight.numel(), macs(layer, layer(x)))
    assert cost.params == sum(m.weight.numel() for m in pair)
    assert cost.macs == macs(pair[0], middle) + macs(pair[1], pair[1](middle))


def test_saving_needs_both_parameters_and_macs() -> None:
    # Stride 4: a spatial split saves weights but runs its first half on every row of the input.
    shape = torch.Size((8, 8, 3, 3))
    calls = ((torch.Size((1, 8, 32, 32)), torch.Size((1, 8, 8, 8))),)
    dense, split = dense_cost(shape, calls), factored_cost(shape, 9, "spatial", calls)
    assert split.params < dense.params
    assert split.macs > dense.macs
    assert not saves(shape, 9, "spatial", calls)
    assert saves(shape, 4, "spatial", calls)
    break_even = torch.Size((10, 10))
    assert saves(break_even, 4, "channel", ((torch.Size((1, 10)), torch.Size((1, 10))),))
    assert not saves(break_even, 5, "channel", ((torch.Size((1, 10)), torch.Size((1, 10))),))  # equal is no saving


def test_penalties_against_their_formulas() -> None:
    g = torch.Generator().manual_seed(0)
    layers = [
        Factors(torch.randn(5, 3, generator=g), torch.rand(3, generator=g), torch.randn(4, 3, generator=g)),
        Factors(torch.randn(6, 2, generator=g), -torch.rand(2, generator=g), torch.randn(2, 2, generator=g)),
    ]
    orthogonality, hoyer = [], []
    for f in layers:
        total = 0.0
        for M in (f.U, f.V):
            for i in range(M.shape[1]):
                for j in range(M.shape[1]):
                    product = sum(float(M[a, i]) * float(M[a, j]) for a in range(len(M)))
                    total += (product - (i == j)) ** 2
        orthogonality.append(total / len(f.s))
        values = [float(v) for v in f.s]
        hoyer.append(sum(map(abs, values)) / math.sqrt(sum(v * v for v in values)))
    assert float(losses.orthogonality(layers)) == pytest.approx(sum(orthogonality) / 2, rel=1e-5)
    assert float(losses.hoyer(layers)) == pytest.approx(sum(hoyer) / 2, rel=1e-5)


def test_penalties_at_their_minima() -> None:
    assert float(losses.orthogonality([svd(torch.randn(8, 5))])) == pytest.approx(0, abs=1e-8)
    one = Factors(torch.eye(3), torch.tensor([7.0, 0, 0]), torch.eye(3))
    flat = Factors(torch.eye(3), torch.ones(3), torch.eye(3))
    assert float(losses.hoyer([one])) == pytest.approx(1)
    assert float(losses.hoyer([flat])) == pytest.approx(math.sqrt(3))


# --- the stage -------------------------------------------------------------------------------------------------------


@HOW
def test_exactly_low_rank_layers_are_found_and_lose_nothing(how: str) -> None:
    model, inputs = zoo.Residual().eval(), zoo.images
    for conv in (model.conv1, model.conv2):
        conv.weight = nn.Parameter(low_rank(tuple(conv.weight.shape), how, 3))
    stage = SVDDecompose(unfold=how, rule="energy", energy=1.0)
    x = inputs(4)
    expected, before = model(x), count_parameters(model)
    result, trace = stage.apply(copy.deepcopy(model), context_of(model, task_of(inputs, 5)))
    ranks = {path: record["rank"][1] for path, record in trace.details["layers"].items()}
    assert (ranks["conv1"], ranks["conv2"]) == (3, 3)
    assert trace.touched == tuple(ranks)
    torch.testing.assert_close(result(x), expected, rtol=1e-4, atol=1e-5)
    saved = sum(a - b for a, b in (r["params"] for r in trace.details["layers"].values()))
    assert count_parameters(result) == before - saved
    custom = [m for m in result.modules() if type(m).__module__.startswith("petra.")]
    assert custom == []


def test_layers_that_would_not_save_stay_dense_with_the_reason() -> None:
    model, inputs = zoo.Residual().eval(), zoo.images
    model.conv1.weight = nn.Parameter(low_rank(tuple(model.conv1.weight.shape), "channel", 2))
    result, trace = SVDDecompose(rule="energy", energy=0.999).apply(
        copy.deepcopy(model), context_of(model, task_of(inputs, 5))
    )
    assert trace.touched == ("conv1",)
    assert isinstance(result.conv1, nn.Sequential)
    for path in ("stem", "conv2", "head"):  # random weights have flat spectra
        assert "saves nothing" in trace.skipped[path]
        assert torch.equal(result.get_submodule(path).weight, model.get_submodule(path).weight)


@pytest.mark.parametrize(
    ("make", "inputs", "layer", "phrase"),
    [
        (zoo.Grouped, zoo.images, "g", "grouped"),
        (zoo.Tied, lambda n: zoo.rows(n, 6), "a", "shares a weight with 'b'"),
        (zoo.Upsampling, zoo.images, "t", "ConvTranspose2d layers are not decomposed"),
        (zoo.ManyOutputs, lambda n: zoo.rows(n, 6), "unused", "do not reach it"),
    ],
)
def test_unsuitable_layers_are_skipped_with_the_reason(
    make: Callable[[], nn.Module], inputs: Callable[[int], Tensor], layer: str, phrase: str
) -> None:
    torch.manual_seed(0)
    model = make().eval()
    result, trace = SVDDecompose(rule="ratio", ratio=0.2).apply(
        copy.deepcopy(model), context_of(model, task_of(inputs, 2))
    )
    assert phrase in trace.skipped[layer]
    assert type(result.get_submodule(layer)) is type(model.get_submodule(layer))
    assert trace.touched


class Reader(nn.Module):
    """Reads a layer's weight besides calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.o = nn.Linear(10, 30), nn.Linear(30, 30), nn.Linear(30, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(torch.relu(self.b(self.a(x).to(self.b.weight.dtype))))


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_layer_whose_weight_the_model_reads_is_left_alone(epochs: int) -> None:
    inputs = lambda n: zoo.rows(n, 10)  # noqa: E731
    model = Reader()
    stage = SVDDecompose(rule="ratio", ratio=0.2, epochs=epochs)
    result, trace = stage.apply(copy.deepcopy(model), context_of(model, task_of(inputs, 3)))
    assert "other than by calling it" in trace.skipped["b"]
    assert isinstance(result.b, nn.Linear)
    assert set(trace.touched) == {"a", "o"}


def test_refuses_when_nothing_saves() -> None:
    inputs = lambda n: zoo.rows(n, 10)  # noqa: E731
    model = zoo.mlp()
    for stage in (SVDDecompose(rule="ratio", ratio=0.9), SVDDecompose(rule="energy", energy=0.9999)):
        with pytest.raises(StageRefused, match="no layer becomes cheaper") as refusal:
            stage.apply(copy.deepcopy(model), context_of(model, task_of(inputs, 3)))
        assert "saves nothing" in refusal.value.hint


def test_training_steepens_spectra_and_keeps_factors_orthogonal(digits_problem: tuple[nn.Module, Task]) -> None:
    """Each penalty, against training without it, does to the model what it is there for."""
    model, task = digits_problem

    def train(**weights: float) -> tuple[nn.Module, dict[str, float]]:
        stage = SVDDecompose(rule="energy", energy=0.9, epochs=4, lr=0.05, **weights)
        result, trace = stage.apply(copy.deepcopy(model), context_of(model, task))
        assert not any(isinstance(m, TrainableFactors) for m in result.modules())
        assert {p for p, m in result.named_modules() if isinstance(m, nn.Sequential) and p in trace.touched}
        return result, trace.details["training"]

    plain, without = train(orthogonality=0.0, hoyer=0.0)
    thin, sparse = train(orthogonality=0.0, hoyer=5.0)
    _, straight = train(orthogonality=30.0, hoyer=0.0)
    assert sparse["hoyer"] < 0.95 * without["hoyer"]
    assert count_parameters(thin) < count_parameters(plain)
    assert straight["orthogonality"] < 0.7 * without["orthogonality"]


def test_training_is_reproducible(digits_problem: tuple[nn.Module, Task]) -> None:
    model, task = digits_problem
    stage = SVDDecompose(rule="ratio", ratio=0.3, epochs=1)
    first, second = (stage.apply(copy.deepcopy(model), context_of(model, task))[0] for _ in range(2))
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())


def test_effects_and_parameters() -> None:
    effects = SVDDecompose.effects
    assert not effects.objection(INITIAL_FACTS)
    assert effects.objection(effects.after(INITIAL_FACTS))  # not twice
    assert not StructuredPrune.effects.objection(effects.after(INITIAL_FACTS))
    card = SVDDecompose.card()
    untrained = card.normalize({"rule": "ratio", "epochs": 0})
    assert set(untrained.params) == {"unfold", "rule", "ratio", "epochs"}
    trained = card.normalize({"epochs": 2})
    assert {"lr", "orthogonality", "hoyer", "energy"} <= set(trained.params)
    generator = np.random.default_rng(0)
    for _ in range(20):
        spec = card.sample(generator)
        assert card.normalize(vars(SVDDecompose.from_spec(spec))) == spec


@HOW
def test_a_decomposed_network_can_still_be_pruned(how: str, digits_problem: tuple[nn.Module, Task]) -> None:
    model, task = digits_problem
    thin, trace = SVDDecompose(unfold=how, rule="ratio", ratio=0.3).apply(copy.deepcopy(model), context_of(model, task))
    pruned, cuts = StructuredPrune(ratio=0.3, round_to=1).apply(copy.deepcopy(thin), context_of(model, task))
    assert count_parameters(pruned) < count_parameters(thin) < count_parameters(model)
    inner = {f"{path}.0" for path in trace.touched}
    assert inner & set(cuts.details["channels"])  # ranks are channels too
    assert pruned(task.example(3)).shape == (3, 10)


def test_replace_module_refuses_what_is_not_there() -> None:
    with pytest.raises(AttributeError):
        replace_module(zoo.mlp(), "9", nn.Identity())


@HOW
def test_resnet20(how: str, data_root: Path) -> None:
    model = pretrained("resnet20", data_root / "weights" / "resnet20.pt")
    inputs = lambda n: zoo.images(n, 32)  # noqa: E731
    stage = SVDDecompose(unfold=how, rule="energy", energy=0.9)
    result, trace = stage.apply(copy.deepcopy(model), context_of(model, task_of(inputs, 10)))
    assert len(trace.touched) >= 19

    def macs(net: nn.Module) -> int:
        shapes = layer_shapes(net, lambda m: m(inputs(1)))
        weighted = {p: m for p, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        return sum(m.weight[0].numel() * math.prod(out[1:]) for p, m in weighted.items() for _, out in shapes[p])

    saved = [r["macs"] for r in trace.details["layers"].values()]
    assert macs(model) - macs(result) == sum(a - b for a, b in saved) > 0
    assert count_parameters(result) < 0.8 * count_parameters(model)
