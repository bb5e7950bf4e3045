"""Low-rank factors against the layers they replace, decompositions against brute force, costs
against real modules.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from petra.methods.lowrank import losses
from petra.methods.lowrank.activations import output_moments
from petra.methods.lowrank.decomposition import (
    CUR,
    Decomposition,
    ExactSVD,
    RandomizedSVD,
    Tucker2,
    WhitenedSVD,
)
from petra.methods.lowrank.factorize import (
    Factors,
    cur,
    leverage,
    mode,
    projected,
    randomized_svd,
    svd,
    tucker2,
)
from petra.methods.lowrank.modules import Factored, TrainableFactors, factored, how_to_unfold
from petra.methods.lowrank.unfold import (
    Cost,
    compose,
    dense_cost,
    factored_cost,
    fold,
    fold_factors,
    unfold,
    unfolded_shape,
)
from petra.model.surgery import layer_shapes

HOW = pytest.mark.parametrize("how", ["channel", "spatial"])


def flipped_linear() -> nn.Module:
    return pytest.importorskip("transformers.pytorch_utils").Conv1D(5, 7)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(7, 5), (7,)),
    "linear on sequences": (lambda: nn.Linear(7, 5, bias=False), (4, 7)),
    "flipped linear": (flipped_linear, (4, 7)),
    "embedding": (lambda: nn.Embedding(11, 6, padding_idx=0), ()),
    "conv": (lambda: nn.Conv2d(3, 5, 3, padding=1), (3, 8, 9)),
    "uneven conv": (
        lambda: nn.Conv2d(4, 6, (5, 2), (2, 3), (2, 1), (1, 2), bias=False),
        (4, 11, 13),
    ),
    "same padding": (lambda: nn.Conv2d(3, 5, (3, 4), padding="same", dilation=(2, 1)), (3, 8, 9)),
    "reflected": (
        lambda: nn.Conv2d(3, 5, (3, 5), padding=(1, 2), padding_mode="reflect"),
        (3, 8, 9),
    ),
    "circular": (lambda: nn.Conv2d(3, 5, 3, padding=(1, 1), padding_mode="circular"), (3, 8, 9)),
    "1-D": (lambda: nn.Conv1d(4, 6, 5, stride=2, padding=2, dilation=2), (4, 21)),
    "3-D": (lambda: nn.Conv3d(3, 6, (3, 1, 2), stride=(1, 2, 1), padding=(1, 0, 0)), (3, 5, 6, 4)),
    "transposed": (
        lambda: nn.ConvTranspose2d(4, 6, (3, 2), 2, 1, output_padding=1, dilation=(1, 2)),
        (4, 5, 6),
    ),
    "transposed 1-D": (lambda: nn.ConvTranspose1d(4, 6, 4, 3, bias=False), (4, 7)),
}
layer_case = pytest.mark.parametrize("case", list(LAYERS))
conv_case = pytest.mark.parametrize(
    "case", ["conv", "uneven conv", "same padding", "circular", "1-D", "3-D"]
)


def build(case: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    make, shape = LAYERS[case]
    layer = make()
    if isinstance(layer, nn.Embedding):
        return layer, torch.tensor([[0, 3, 10, 3], [1, 2, 0, 9]])
    return layer, torch.randn(2, *shape)


def calls_of(layer: nn.Module, x: Tensor) -> tuple[tuple[torch.Size, torch.Size], ...]:
    return ((x.shape, layer(x).shape),)


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


# --- decompositions -------------------------------------------------------------------------------


def test_svd_is_sorted_orthonormal_and_optimal() -> None:
    W = torch.randn(9, 6)
    f = svd(W)
    assert torch.all(f.s[:-1] >= f.s[1:])
    torch.testing.assert_close(f.compose(), W)
    torch.testing.assert_close(f.U.T @ f.U, torch.eye(6), atol=1e-5, rtol=0)
    for k in range(1, 6):
        # Eckart-Young: the error is the energy left out, and no random rank-k matrix beats it.
        error = float((W - f.truncate(k).compose()).norm())
        assert error == pytest.approx(float(f.s[k:].norm()), rel=1e-4)
        A = torch.randn(9, k)
        assert error <= float((W - A @ torch.linalg.lstsq(A, W).solution).norm()) + 1e-5


def test_split_balances_two_factors_and_keeps_three_apart() -> None:
    f = svd(torch.randn(9, 6) * 100)
    A, B = f.split()
    torch.testing.assert_close(A @ B, f.compose())
    assert float(A.norm()) == pytest.approx(float(B.norm()), rel=1e-4)
    U, M, V = f.split(3)
    torch.testing.assert_close(U @ M @ V, f.compose())
    assert torch.equal(M, torch.diag(f.s))


def steep(m: int, n: int, seed: int = 0) -> Tensor:
    """A matrix whose singular values halve."""
    g = torch.Generator().manual_seed(seed)
    f = svd(torch.randn(m, n, generator=g))
    return Factors(f.U, 0.5 ** torch.arange(min(m, n)), f.V).compose()


def test_randomized_svd_is_nearly_the_exact_one_and_its_own_generator() -> None:
    W = steep(60, 40)
    state = torch.get_rng_state()
    f = randomized_svd(W, 6, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert f.U.shape == (60, 6)
    best = float((W - svd(W).truncate(6).compose()).norm())
    assert float((W - f.compose()).norm()) <= 1.01 * best
    torch.testing.assert_close(f.s, svd(W).s[:6], rtol=1e-4, atol=0)
    again = randomized_svd(W, 6, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(f.split(), again.split(), strict=True))
    # A flat spectrum, where seeds show and the error is still near the best.
    flat = torch.randn(60, 40, generator=torch.Generator().manual_seed(0))
    one, two = (randomized_svd(flat, 6, seed=s).compose() for s in (1, 2))
    assert not torch.equal(one, two)
    assert float((flat - one).norm()) <= 1.1 * float(
        (flat - svd(flat).truncate(6).compose()).norm()
    )


def test_leverage_by_its_definition() -> None:
    f = svd(torch.randn(7, 5))
    scores = leverage(f.V, 3)
    for j in range(5):
        assert float(scores[j]) == pytest.approx(
            sum(float(f.V[j, i]) ** 2 for i in range(3)) / 3, rel=1e-5
        )
    assert float(scores.sum()) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_cur_takes_columns_and_rows_and_the_best_core(k: int) -> None:
    W = torch.randn(8, 6, generator=torch.Generator().manual_seed(k))
    C, U, R = cur(W, k)
    assert all(any(torch.equal(c, w) for w in W.T) for c in C.T)
    assert all(any(torch.equal(r, w) for w in W) for r in R)
    # The best core by brute force: least squares over its k^2 entries.
    best = torch.linalg.lstsq(
        torch.kron(C.double(), R.T.double().contiguous()), W.double().reshape(-1, 1)
    ).solution
    torch.testing.assert_close(U.double(), best.reshape(k, k), rtol=1e-3, atol=1e-5)
    error = float((W - C @ U @ R).norm())
    assert float((W - svd(W).truncate(k).compose()).norm()) <= error < float(W.norm())


def test_cur_is_exact_on_low_rank_and_finds_what_sticks_out() -> None:
    W = torch.randn(9, 4, dtype=torch.double) @ torch.randn(4, 7, dtype=torch.double)
    C, U, R = cur(W, 4)
    torch.testing.assert_close(C @ U @ R, W)
    spiked = 0.01 * torch.randn(10, 10)
    spiked[:, 6] = 5.0
    spiked[3, 6] = 50.0
    C, _, R = cur(spiked, 1)
    assert torch.equal(C[:, 0], spiked[:, 6])  # the complement of what is right would miss it
    assert torch.equal(R[0], spiked[3])


@pytest.mark.parametrize(("r_out", "r_in"), [(2, 3), (4, 2), (6, 5), (1, 1)])
def test_tucker_factors_are_orthonormal_with_the_core_they_imply(r_out: int, r_in: int) -> None:
    W = torch.randn(6, 5, 3, 2, generator=torch.Generator().manual_seed(r_out))
    U, G, V = tucker2(W, r_out, r_in)
    assert (U.shape, G.shape, V.shape) == ((6, r_out), (r_out, r_in, 3, 2), (5, r_in))
    torch.testing.assert_close(U.T @ U, torch.eye(r_out), atol=1e-5, rtol=0)
    torch.testing.assert_close(V.T @ V, torch.eye(r_in), atol=1e-5, rtol=0)
    G_by_index = torch.zeros_like(G)
    for r in range(r_out):
        for s in range(r_in):
            for o in range(6):
                for i in range(5):
                    G_by_index[r, s] += W[o, i] * U[o, r] * V[i, s]
    torch.testing.assert_close(G, G_by_index, rtol=1e-4, atol=1e-5)

    def error(sweeps: int) -> float:
        A, core, B = tucker2(W, r_out, r_in, sweeps=sweeps)
        return float((W - torch.einsum("or,rsyx,is->oiyx", A, core, B)).square().sum())

    # HOSVD's bounds: no better than either mode's own truncation, no worse than their sum; sweeps
    # only improve.
    tails = [float(svd(mode(W, d)).s[k:].square().sum()) for d, k in ((0, r_out), (1, r_in))]
    assert max(tails) - 1e-4 <= error(5) <= error(0) + 1e-4
    assert error(0) <= sum(tails) + 1e-4


def test_tucker_finds_exact_ranks_and_with_one_mode_full_is_the_svd_of_the_other() -> None:
    core = torch.randn(2, 3, 3, 3)
    W = torch.einsum("or,rsyx,is->oiyx", torch.randn(8, 2), core, torch.randn(7, 3))
    U, G, V = tucker2(W, 2, 3)
    torch.testing.assert_close(torch.einsum("or,rsyx,is->oiyx", U, G, V), W, rtol=1e-4, atol=1e-4)
    W = torch.randn(6, 5, 3, 3)
    U, G, V = tucker2(W, 2, 5)
    expected = svd(mode(W, 0)).truncate(2).compose().reshape(W.shape)
    torch.testing.assert_close(
        torch.einsum("or,rsyx,is->oiyx", U, G, V), expected, rtol=1e-4, atol=1e-4
    )
    with pytest.raises(ValueError, match="supports"):
        tucker2(torch.randn(8, 8, 1, 1), 4, 2)


@conv_case
def test_tucker_layers_compute_what_the_composed_weight_does(case: str) -> None:
    layer, x = build(case)
    part = Tucker2(layer, "channel", calls_of(layer, x), 3)
    torch.testing.assert_close(part.module(part.full)(x), layer(x), rtol=1e-4, atol=1e-5)
    dense = copy.deepcopy(layer)
    dense.weight = nn.Parameter(part.approximation((3, 2)))
    module = part.module((3, 2))
    torch.testing.assert_close(module(x), dense(x), rtol=1e-4, atol=1e-5)
    assert isinstance(module, Factored)
    torch.testing.assert_close(module.weight, dense.weight, rtol=1e-4, atol=1e-5)
    assert float((dense(x) - layer(x)).detach().abs().max()) > 1e-3
    # Ranks that one mode cannot support are cut to what it can, in cost as in the layers.
    clamped = part.module((5, 1))
    assert part.cost((5, 1)).params == sum(m.weight.numel() for m in clamped)


# --- activations ----------------------------------------------------------------------------------


def lopsided(case: str) -> tuple[nn.Module, list[Tensor]]:
    """A layer and inputs with very unequal channels."""
    layer, x = build(case)
    if isinstance(layer, nn.Embedding):
        return layer, [torch.tensor([[1, 1, 1, 2], [1, 3, 2, 1]]), torch.tensor([[1, 2, 9, 1]])]
    dim = 1 if isinstance(layer, nn.modules.conv._ConvNd) else -1
    channels = x.shape[dim]
    scale = 10.0 ** -torch.arange(channels).float()
    shape = [1] * x.ndim
    shape[dim] = channels
    g = torch.Generator().manual_seed(0)
    mix = torch.linalg.qr(torch.randn(channels, channels, generator=g)).Q
    batches = [torch.randn(n, *x.shape[1:], generator=g) * scale.reshape(shape) for n in (4, 3)]
    return layer, [(b.movedim(dim, -1) @ mix).movedim(-1, dim) for b in batches]


def output_error(layer: nn.Module, weight: Tensor, batches: Sequence[Tensor]) -> float:
    """||(W - W_k) X||_F^2 with the layer's own arithmetic."""
    other = copy.deepcopy(layer)
    other.weight = nn.Parameter(weight)
    with torch.no_grad():
        return sum(float((layer(b) - other(b)).double().square().sum()) for b in batches)


def whitened(layer: nn.Module, how: str, batches: Sequence[Tensor], layers: int = 2) -> WhitenedSVD:
    model = nn.Sequential(layer)
    moments = output_moments(model, {"0": how}, batches)["0"]
    return WhitenedSVD(layer, how, calls_of(layer, batches[0]), layers, moments=moments)


@pytest.mark.parametrize(
    "case",
    [
        "linear on sequences",
        "flipped linear",
        "embedding",
        "conv",
        "uneven conv",
        "circular",
        "1-D",
        "3-D",
    ],
)
def test_whitened_truncation_is_optimal_for_the_outputs(case: str) -> None:
    layer, batches = lopsided(case)
    how = how_to_unfold(layer, "channel")
    part = whitened(layer, how, batches)
    exact = ExactSVD(layer, how, part.calls, 2)
    (spectrum,) = part.spectra()
    better = 0
    for k in range(1, part.full[0]):
        error = output_error(layer, part.approximation((k,)), batches)
        # Eckart-Young for W X: the least possible error is the energy of its smaller singular
        # values.
        floor = float(spectrum.s[k:].square().sum())
        assert error == pytest.approx(floor, rel=1e-3, abs=1e-8 * float(spectrum.s.square().sum()))
        plain = output_error(layer, exact.approximation((k,)), batches)
        assert error <= plain + 1e-8 * float(spectrum.s.square().sum())
        better += error < 0.9 * plain
        assert torch.linalg.matrix_rank(unfold(part.approximation((k,)), how), rtol=1e-5) <= k
    assert better


def test_whitening_by_the_closed_form() -> None:
    """W_k = U_k s_k V_k^T C^(-1/2) from the SVD of W C^(1/2), C from patches unfolded by torch's
    own im2col.
    """
    layer, batches = lopsided("conv")
    patches = torch.cat(
        [nn.functional.unfold(b, 3, padding=1).transpose(1, 2).flatten(0, 1) for b in batches]
    ).double()
    C = patches.T @ patches
    values, vectors = torch.linalg.eigh(C)
    root = vectors @ torch.diag(values.sqrt()) @ vectors.T
    W = layer.weight.detach().flatten(1).double()
    f = svd(W @ root)
    part = whitened(layer, "channel", batches)
    torch.testing.assert_close(part.spectra()[0].s, f.s, rtol=1e-4, atol=1e-6 * float(f.s[0]))
    for k in (1, 2, 4):
        expected = f.truncate(k).compose() @ torch.linalg.inv(root)
        found = part.approximation((k,)).flatten(1).double()
        assert float(((found - expected) @ root).norm()) <= 1e-4 * float((W @ root).norm())


# Wide, and tall: in coordinates of the column space.
@pytest.mark.parametrize(("m", "n"), [(4, 9), (9, 4)])
def test_moments_against_the_outputs_themselves(m: int, n: int) -> None:
    layer = nn.Linear(n, m)
    batches = [torch.randn(5, 3, n), torch.randn(2, 3, n)]
    moments = output_moments(nn.Sequential(layer), {"0": "channel"}, batches)["0"]
    Y = (
        torch.cat([nn.functional.linear(b, layer.weight).flatten(0, 1) for b in batches])
        .detach()
        .double()
    )
    energies, directions = moments.principal()
    assert moments.rows == len(Y) == 21
    torch.testing.assert_close(
        energies.sqrt(), torch.linalg.svdvals(Y)[: min(m, n)], rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(directions.T @ directions, torch.eye(min(m, n), dtype=torch.double))
    torch.testing.assert_close(directions @ (directions.T @ Y.T), Y.T, rtol=1e-4, atol=1e-4)
    assert moments.variance() == pytest.approx(float((Y - Y.mean(0)).square().sum()), rel=1e-5)


def test_projection_keeps_its_triplets() -> None:
    W, basis = torch.randn(6, 9), torch.linalg.qr(torch.randn(6, 2)).Q
    f = projected(W, basis)
    torch.testing.assert_close(f.compose(), basis @ basis.T @ W)
    torch.testing.assert_close(f.U.T @ f.U, torch.eye(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(f.V.T @ f.V, torch.eye(2), atol=1e-5, rtol=0)


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
