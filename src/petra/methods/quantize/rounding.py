"""Rounding weights to codes: int8 with a scale per channel, 4 bits with a scale per group.

All on tensors; nothing here knows a module.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST_SCALE = 2.0**-100
"""Scales are bounded below so that dividing by them cannot overflow."""

_AT_ONCE = 2**16
"""Weights treated at once, so that a pass over them stays within a CPU's cache."""

_SHARES = torch.linspace(0.5, 8 / 7, 16).tolist()
"""Scales tried for a group, relative to the one that just reaches its extreme weight with the code
-8. The last reaches it with +7 and the other sign.
"""


def per_channel(W: Tensor, largest: int, axis: int = 0) -> tuple[Tensor, Tensor]:
    """int8 codes q of W's shape and float32 scales s, broadcastable to it, with W close to q s.

    Symmetric: s = max |W| / largest and q = round(W / s) for every index of `axis`, so |W - q s| <=
    s / 2.
    """
    peak = W.abs().amax([d for d in range(W.ndim) if d != axis], keepdim=True)
    s = (peak / largest).clamp(min=_LEAST_SCALE)
    return (W / s).round().clamp(-largest, largest).to(torch.int8), s


def per_group(W: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Codes q (out, in / block, block), -8..7, and scales s (out, in / block) for W (out, in).

    For each group of `block` weights of a row, a clipping range from a grid, round to nearest, and
    the scale that fits the codes best in squared error, s = <w, q> / <q, q>; the best of all.
    Scales may be negative: the weight of largest magnitude takes the code -8, whatever its sign.
    Cost: 16 passes over the weights.
    """
    rows = max(1, _AT_ONCE // W.shape[1])
    parts = [_fit_groups(part.reshape(len(part), -1, block)) for part in torch.split(W, rows)]
    return torch.cat([q for q, _ in parts]), torch.cat([s for _, s in parts])


def _fit_groups(w: Tensor) -> tuple[Tensor, Tensor]:
    """`per_group` for weights that are split into groups already (out, groups, block)."""
    extreme = w.gather(-1, w.abs().argmax(-1, keepdim=True))
    base = (
        torch.where(extreme.abs() < _LEAST_SCALE, torch.full_like(extreme, _LEAST_SCALE), extreme)
        / -8
    )
    best_q, best_s = torch.zeros_like(w), base.clone()
    best_error = torch.full_like(base, torch.inf)
    for share in _SHARES:
        q = (w / (base * share)).round().clamp(-8, 7)
        s = (w * q).sum(-1, keepdim=True) / (q * q).sum(-1, keepdim=True).clamp(min=1)
        error = (w - q * s).square().sum(-1, keepdim=True)
        better = error < best_error
        best_q, best_s = torch.where(better, q, best_q), torch.where(better, s, best_s)
        best_error = torch.where(better, error, best_error)
    return best_q.to(torch.int8), best_s.squeeze(-1)


def pack(q: Tensor) -> Tensor:
    """Two 4-bit codes in a byte: (out, ...) int8 in -8..7 -> (out, half of them) uint8, eight
    added, the first in the lower half.
    """
    codes = (q + 8).to(torch.uint8).flatten(1)
    return codes[..., 0::2] | (codes[..., 1::2] << 4)
