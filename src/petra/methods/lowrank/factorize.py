"""Low-rank factors of a matrix or a convolution: singular values, columns and rows, Tucker.

All on tensors; nothing here knows a module. Everything is computed in double precision and returned
in the type given.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """U (m, r), s (r,), V (n, r) with W = U diag(s) V^T of shape (m, n)."""

    U: Tensor
    s: Tensor
    V: Tensor

    def compose(self) -> Tensor:
        """W (m, n)."""
        return (self.U * self.s) @ self.V.T

    def truncate(self, k: int) -> Factors:
        """The first `k` triplets: the best rank-k approximation when they come from `svd`."""
        return Factors(self.U[:, :k], self.s[:k], self.V[:, :k])

    def split(self, layers: int = 2) -> tuple[Tensor, ...]:
        """A (m, r) and B (r, n) with W = A B, the singular values shared out evenly (as square
        roots), so that neither factor is much larger than the other; with three `layers` U, diag(s)
        and V^T.
        """
        if layers == 3:
            return self.U, torch.diag(self.s), self.V.T
        root = self.s.clamp(min=0).sqrt()
        return self.U * root, root[:, None] * self.V.T


def svd(W: Tensor) -> Factors:
    """Thin singular value decomposition, r = min(m, n), s descending."""
    U, s, Vh = torch.linalg.svd(W.double(), full_matrices=False)
    return Factors(U.to(W.dtype), s.to(W.dtype), Vh.T.to(W.dtype))


def randomized_svd(
    W: Tensor, k: int, *, seed: int, oversampling: int = 10, iterations: int = 2
) -> Factors:
    """The first `k` triplets, nearly: the SVD of W's projection onto the range of W Omega, Omega
    Gaussian with k + oversampling columns, after power iterations (Halko, Martinsson & Tropp 2011).

    The caller's random state is untouched. Cost: a few products with W instead of its full
    decomposition.
    """
    with torch.random.fork_rng([W.device] if W.is_cuda else []):
        torch.manual_seed(seed)
        U, s, V = torch.svd_lowrank(W.double(), q=min(k + oversampling, *W.shape), niter=iterations)
    return Factors(U.to(W.dtype), s.to(W.dtype), V.to(W.dtype)).truncate(k)


def projected(W: Tensor, basis: Tensor) -> Factors:
    """Factors of P P^T W for `basis` P (m, k) with orthonormal columns.

    With the leading eigenvectors of Y Y^T, Y = W X, as basis this is the matrix W_k of rank k with
    the least
    ||(W - W_k) X||_F for the inputs X. It equals U_k diag(s_k) V_k^T C^(-1/2) from the SVD of the
    whitened weight W C^(1/2), C = X X^T (SVD-LLM, Wang et al. 2024; ASVD, Yuan et al. 2023, scales
    by diag(C) instead), and needs neither C nor its inverse. (As principal components of responses:
    Zhang et al. 2016.)
    """
    f = svd(basis.double().T @ W.double())
    return Factors((basis.double() @ f.U).to(W.dtype), f.s.to(W.dtype), f.V.to(W.dtype))


def leverage(V: Tensor, k: int) -> Tensor:
    """Leverage scores (n,) of what V's rows (n, r) stand for: pi_j = (1/k) sum_{i<=k} V_ji^2, which
    sum to one.
    """
    return V[:, :k].square().sum(1) / k


def cur(W: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """C (m, k) and R (k, n), columns and rows of W, and U (k, k) = C^+ W R^+, so that C U R is near
    W.

    Taken are the columns and rows with the largest leverage scores (Mahoney & Drineas 2009, without
    their sampling: Papailiopoulos, Kyrillidis & Boutsidis 2014). U is the best for C and R in the
    Frobenius norm. The error is never below that of the truncated SVD; what is kept are weights of
    the model itself. Returned as C, U, R.
    """
    f = svd(W.double())
    columns = leverage(f.V, k).topk(k).indices.sort().values
    rows = leverage(f.U, k).topk(k).indices.sort().values
    C, R = W.double()[:, columns], W.double()[rows]
    U = torch.linalg.pinv(C) @ W.double() @ torch.linalg.pinv(R)
    return C.to(W.dtype), U.to(W.dtype), R.to(W.dtype)


def mode(W: Tensor, dim: int) -> Tensor:
    """The unfolding of a tensor along `dim` as a matrix (W.shape[dim], rest)."""
    return W.movedim(dim, 0).flatten(1)


def tucker2(W: Tensor, r_out: int, r_in: int, *, sweeps: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """U (out, r_out), core G (r_out, r_in, *kernel), V (in, r_in): W ~ G x_0 U x_1 V for W (out,
    in, *kernel).

    Tucker-2: the leading singular vectors of both channel modes (HOSVD), refined by alternating
    between them (HOOI, De Lathauwer et al. 2000), as Kim et al. (2016) compress convolutions. Ranks
    that the other mode cannot support (r_out > r_in * kernel, or the reverse) raise ValueError.
    """
    kernel = W[0, 0].numel()
    if r_out > r_in * kernel or r_in > r_out * kernel:
        raise ValueError(
            f"ranks {r_out} and {r_in} with {kernel} kernel elements: one exceeds what the other"
            " supports"
        )
    W64 = W.double()
    U = _leading(mode(W64, 0), r_out)
    V = _leading(mode(W64, 1), r_in)
    for _ in range(sweeps):
        U = _leading(mode(torch.einsum("oi...,is->os...", W64, V), 0), r_out)
        V = _leading(mode(torch.einsum("oi...,or->ri...", W64, U), 1), r_in)
    G = torch.einsum("oi...,or,is->rs...", W64, U, V)
    return U.to(W.dtype), G.to(W.dtype), V.to(W.dtype)


def _leading(M: Tensor, k: int) -> Tensor:
    """The `k` leading left singular vectors, by the eigenvectors of M M^T: cheaper for the wide
    matrices met here.
    """
    vectors: Tensor = torch.linalg.eigh(M @ M.T).eigenvectors
    return vectors.flip(1)[:, :k]
