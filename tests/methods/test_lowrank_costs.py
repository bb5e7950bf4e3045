"""What decompositions cost, and the penalties that prepare them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from lowrank_layers import HOW, build, calls_of, conv_case, layer_case
from torch import Tensor, nn

from petra.methods.lowrank import losses
from petra.methods.lowrank.decomposition import (
    CUR,
    Decomposition,
    ExactSVD,
    RandomizedSVD,
    Tucker2,
)
from petra.methods.lowrank.factorize import (
    Factors,
    svd,
)
from petra.methods.lowrank.modules import factored, how_to_unfold
from petra.methods.lowrank.unfold import (
    Cost,
    dense_cost,
    factored_cost,
    unfold,
)
from petra.model.surgery import layer_shapes


def real_macs(layers: Sequence[nn.Module], x: Tensor) -> int:
    """Multiply-accumulates for one item, from the shapes that really flow through the layers."""
    shapes = layer_shapes(nn.Sequential(*layers), lambda m: m(x))
    total = 0
    for i, layer in enumerate(layers):
        ((inputs, output),) = shapes[str(i)]
        if isinstance(layer, nn.Embedding):
            continue
        if isinstance(layer, nn.modules.conv._ConvTransposeNd):
            # Every input element meets its whole filter.
            total += math.prod(inputs[1:]) * layer.weight[0].numel()
        elif isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
            total += math.prod(output[1:]) * layer.weight[0].numel()
        else:
            total += math.prod(output[1:]) * layer.weight.shape[0]
    return total


# --- costs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [2, 3])
@HOW
@layer_case
def test_costs_against_the_modules_and_a_count_of_products(
    case: str, how: str, layers: int
) -> None:
    layer, x = build(case)
    how, k = how_to_unfold(layer, how), 2
    shape, calls = layer.weight.shape, calls_of(layer, x)
    parts = factored(layer, svd(unfold(layer.weight.detach(), how)).truncate(k).split(layers), how)
    cost, dense = factored_cost(shape, k, how, calls, layers), dense_cost(shape, how, calls)
    assert dense == Cost(layer.weight.numel(), real_macs([layer], x))
    assert cost == Cost(sum(m.weight.numel() for m in parts), real_macs(list(parts), x))


@conv_case
def test_costs_of_tucker_against_its_modules(case: str) -> None:
    layer, x = build(case)
    part = Tucker2(layer, "channel", calls_of(layer, x), 3)
    module = part.module((3, 2))
    assert part.cost((3, 2)) == Cost(
        sum(m.weight.numel() for m in module), real_macs(list(module), x)
    )


def test_saving_needs_both_parameters_and_macs_and_a_margin() -> None:
    # Stride 4: a spatial split saves weights but runs its first half on every row of the input.
    shape = torch.Size((8, 8, 3, 3))
    calls = ((torch.Size((1, 8, 32, 32)), torch.Size((1, 8, 8, 8))),)
    dense, split = dense_cost(shape, "spatial", calls), factored_cost(shape, 9, "spatial", calls)
    assert split.params < dense.params
    assert split.macs > dense.macs
    assert not split.saves_over(dense)
    assert factored_cost(shape, 4, "spatial", calls).saves_over(dense)
    assert Cost(95, 95).saves_over(Cost(100, 100))
    assert not Cost(96, 90).saves_over(Cost(100, 100))
    assert not Cost(90, 96).saves_over(Cost(100, 100))
    # A lookup multiplies nothing, whatever replaces it.
    assert Cost(90, 50).saves_over(Cost(100, 0))


DECOMPOSERS: dict[str, Callable[[nn.Module, str, Tensor], Decomposition]] = {
    "svd": lambda layer, how, x: ExactSVD(layer, how, calls_of(layer, x), 2),
    "svd in three": lambda layer, how, x: ExactSVD(layer, how, calls_of(layer, x), 3),
    "randomized": lambda layer, how, x: RandomizedSVD(layer, how, calls_of(layer, x), 2, seed=0),
    "cur": lambda layer, how, x: CUR(layer, how, calls_of(layer, x), 2),
    "cur in three": lambda layer, how, x: CUR(layer, how, calls_of(layer, x), 3),
}


@pytest.mark.parametrize("decomposer", list(DECOMPOSERS))
@layer_case
def test_every_decomposer_builds_what_it_says(case: str, decomposer: str) -> None:
    layer, x = build(case)
    how = how_to_unfold(layer, "channel")
    part = DECOMPOSERS[decomposer](layer, how, x)
    (full,) = part.full
    assert len(part.spectra()[0].s) == full
    errors = []
    for k in (2, full):
        module = part.module((k,))
        dense = copy.deepcopy(layer)
        dense.weight = nn.Parameter(part.approximation((k,)))
        torch.testing.assert_close(module(x), dense(x), rtol=1e-3, atol=1e-4)
        assert part.cost((k,)).params == sum(m.weight.numel() for m in module)
        errors.append(float((dense.weight - layer.weight).detach().norm()))
    assert errors[1] < 1e-3 < errors[0]


def test_one_layer_is_composed_back() -> None:
    layer, x = build("conv")
    expected = ExactSVD(layer, "channel", calls_of(layer, x), 2).approximation((2,))
    part = ExactSVD(layer, "channel", calls_of(layer, x), 1)
    assert part.module((2,)) is layer
    torch.testing.assert_close(layer.weight.detach(), expected)
    assert torch.linalg.matrix_rank(layer.weight.detach().flatten(1), rtol=1e-5) == 2


# --- penalties ------------------------------------------------------------------------------------


def test_penalties_against_their_formulas() -> None:
    g = torch.Generator().manual_seed(0)
    layers = [
        Factors(
            torch.randn(5, 3, generator=g),
            torch.rand(3, generator=g),
            torch.randn(4, 3, generator=g),
        ),
        Factors(
            torch.randn(6, 2, generator=g),
            -torch.rand(2, generator=g),
            torch.randn(2, 2, generator=g),
        ),
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
