"""Low-rank factors against the layers they replace, decompositions against brute force, costs
against real modules.
"""

from __future__ import annotations

import copy

import pytest
import torch
from lowrank_layers import HOW, build, layer_case
from torch import nn

from petra.methods.lowrank.factorize import (
    svd,
)
from petra.methods.lowrank.modules import TrainableFactors, factored, how_to_unfold
from petra.methods.lowrank.unfold import (
    compose,
    fold,
    fold_factors,
    unfold,
    unfolded_shape,
)

# --- unfolding ------------------------------------------------------------------------------------


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


@HOW
@layer_case
def test_unfolding_and_its_inverses(case: str, how: str) -> None:
    layer, _ = build(case)
    weight, how = layer.weight.detach(), how_to_unfold(layer, how)
    W = unfold(weight, how)
    assert tuple(W.shape) == unfolded_shape(weight.shape, how)
    assert torch.equal(fold(W, weight.shape, how), weight)
    for layers in (2, 3):
        parts = fold_factors(svd(W).split(layers), weight.shape, how)
        assert len(parts) == layers
        torch.testing.assert_close(compose(parts, how), weight)


def test_what_is_not_decomposed_has_no_unfolding() -> None:
    attention = nn.MultiheadAttention(8, 2)
    for layer in (
        attention.out_proj,
        nn.GRU(3, 4),
        nn.Bilinear(2, 3, 4),
        nn.EmbeddingBag(5, 3),
        nn.LayerNorm(3),
    ):
        assert how_to_unfold(layer, "channel") == ""


# --- layers for factors ---------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [2, 3])
@HOW
@layer_case
def test_full_rank_factors_compute_the_same_function(case: str, how: str, layers: int) -> None:
    layer, x = build(case)
    how = how_to_unfold(layer, how)
    parts = factored(layer, svd(unfold(layer.weight.detach(), how)).split(layers), how)
    torch.testing.assert_close(parts(x), layer(x), rtol=1e-4, atol=1e-5)
    assert len(parts) == layers
    assert all(type(m).__module__.startswith("torch.nn") for m in parts)
    assert all(m.bias is None for m in list(parts)[:-1] if not isinstance(m, nn.Embedding))
    assert (parts[-1].bias is None) == (getattr(layer, "bias", None) is None)


@pytest.mark.parametrize("layers", [2, 3])
@HOW
@layer_case
def test_truncated_factors_compute_what_the_composed_weight_does(
    case: str, how: str, layers: int
) -> None:
    layer, x = build(case)
    how = how_to_unfold(layer, how)
    factors = svd(unfold(layer.weight.detach(), how)).truncate(2)
    dense = copy.deepcopy(layer)
    dense.weight = nn.Parameter(fold(factors.compose(), layer.weight.shape, how))
    parts = factored(layer, factors.split(layers), how)
    torch.testing.assert_close(parts(x), dense(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts.weight, dense.weight, rtol=1e-4, atol=1e-5)
    assert float((dense(x) - layer(x)).detach().abs().max()) > 1e-3  # truncation did something


@HOW
@layer_case
def test_trainable_module_starts_as_the_layer_and_ends_as_it(case: str, how: str) -> None:
    layer, x = build(case)
    if isinstance(layer, nn.Embedding):
        pytest.skip("embeddings train as they are")
    expected = layer(x).detach()
    module = TrainableFactors(copy.deepcopy(layer), how_to_unfold(layer, how))
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)
    module(x).square().sum().backward()
    assert all(
        p.grad is not None and float(p.grad.abs().sum()) > 0 for p in (module.U, module.s, module.V)
    )
    names = {name for name, _ in module.named_parameters()}
    # The dense weight does not train.
    assert names == {"U", "s", "V"} | ({"bias"} if layer.bias is not None else set())
    torch.testing.assert_close(module.as_dense()(x), expected, rtol=1e-4, atol=1e-5)


def test_a_preview_is_seen_in_evaluation_only_and_forgotten_with_the_mode() -> None:
    layer, x = build("linear")
    module = TrainableFactors(layer, "channel").eval()
    module.preview = torch.zeros(5, 7)
    torch.testing.assert_close(module(x), layer.bias.expand(2, 5))
    module.train()
    assert module.preview is None
    torch.testing.assert_close(module(x), layer(x), rtol=1e-4, atol=1e-5)


def test_an_embedding_keeps_its_padding() -> None:
    layer, x = build("embedding")
    parts = factored(
        layer, svd(unfold(layer.weight.detach(), "lookup")).truncate(3).split(), "lookup"
    )
    assert parts.padding_idx == 0
    assert (parts.num_embeddings, parts.embedding_dim) == (11, 6)
    assert float(parts(x)[0, 0].detach().abs().max()) < 1e-6  # the padding row was zero
    parts(x).sum().backward()
    assert torch.count_nonzero(parts[0].weight.grad[0]) == 0
    assert torch.count_nonzero(parts[0].weight.grad[3]) > 0


def test_replacements_answer_for_the_layer() -> None:
    linear, conv = build("linear")[0], build("conv")[0]
    a = factored(linear, svd(linear.weight.detach()).truncate(2).split(), "channel")
    assert (a.in_features, a.out_features, a.weight.shape, a.weight.dtype) == (
        7,
        5,
        (5, 7),
        torch.float32,
    )
    assert a.bias is a[-1].bias
    assert not hasattr(a, "in_channels")
    b = factored(conv, svd(unfold(conv.weight.detach(), "channel")).truncate(2).split(), "channel")
    assert (b.in_channels, b.out_channels) == (3, 5)


def test_frozen_layers_stay_frozen_and_modes_are_kept() -> None:
    layer = nn.Linear(6, 6).eval().requires_grad_(False)
    parts = factored(layer, svd(layer.weight).truncate(2).split(), "channel")
    assert not any(p.requires_grad for p in parts.parameters())
    assert not parts.training
    assert not parts[0].training
