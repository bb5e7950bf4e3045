"""Regularisers that make trained factors truncate well, each a mean over decomposed layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from petra.methods.lowrank.factorize import Factors


def orthogonality(layers: Sequence[Factors]) -> Tensor:
    """Mean over layers of (1/r) (||U^T U - I||_F^2 + ||V^T V - I||_F^2), r the number of columns.

    Scalar.

    Keeps s the singular values of W while the factors are trained apart (PETRA, after Yang et al.
    2020, "Learning Low-rank Deep Neural Networks via Singular Vector Orthogonality Regularization
    and Singular Value Sparsification").
    """
    terms = []
    for f in layers:
        r = len(f.s)
        identity = torch.eye(r, dtype=f.s.dtype, device=f.s.device)
        terms.append(
            ((f.U.T @ f.U - identity).square().sum() + (f.V.T @ f.V - identity).square().sum()) / r
        )
    return torch.stack(terms).mean()


def hoyer(layers: Sequence[Factors]) -> Tensor:
    """Mean over layers of ||s||_1 / ||s||_2: between 1 (one singular value) and sqrt(r) (all
    equal). Scalar.

    Does not depend on the scale of s, so it makes spectra steep without shrinking weights (Hoyer
    2004).
    """
    return torch.stack(
        [f.s.abs().sum() / torch.linalg.vector_norm(f.s).clamp(min=1e-12) for f in layers]
    ).mean()
