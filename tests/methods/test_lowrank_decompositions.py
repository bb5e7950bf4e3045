"""What decompositions promise: optimal errors, exact ranks, and truncation for the outputs."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from lowrank_layers import build, calls_of, conv_case
from torch import Tensor, nn

from petra.methods.lowrank.activations import output_moments
from petra.methods.lowrank.decomposition import (
    ExactSVD,
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
from petra.methods.lowrank.modules import Factored, how_to_unfold
from petra.methods.lowrank.unfold import (
    unfold,
)

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
