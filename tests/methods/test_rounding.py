"""Rounding of weights: the least error of any scale, packing, decoding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from petra.methods.quantize.rounding import pack, per_channel, per_group
from petra.model.layers.quantized import decode, unpack


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


# -- rounding --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "axis"), [((20, 30), 0), ((20, 30), 1), ((6, 5, 3, 3), 0), ((6, 5, 3, 3), 1)]
)
@pytest.mark.parametrize("largest", [64, 127])
def test_channels_are_rounded_to_within_half_a_step(
    shape: tuple[int, ...], axis: int, largest: int
) -> None:
    W = torch.randn(shape) * torch.logspace(-3, 2, shape[axis]).reshape(
        [-1 if d == axis else 1 for d in range(len(shape))]
    )
    q, s = per_channel(W, largest, axis)
    assert q.dtype == torch.int8
    assert s.shape == tuple(n if d == axis else 1 for d, n in enumerate(shape))
    assert ((W - q * s).abs() <= s / 2 * 1.0001).all()
    others = [d for d in range(W.ndim) if d != axis]
    assert (q.abs().amax(others) == largest).all(), "every channel uses its whole range"


def test_channels_without_weights_stay_zero() -> None:
    W = torch.zeros(3, 32)
    W[1] = torch.randn(32)
    for value in (
        decode(*per_channel(W, 127)),
        decode(pack(per_group(W, 16)[0]), per_group(W, 16)[1]),
    ):
        assert torch.isfinite(value).all()
        assert not value[0].any()
        assert value[1].any()


def best_by_force(w: np.ndarray) -> float:
    """Least squared error of any scale in a fine grid, either sign, with codes rounded to
    nearest.
    """
    peak = np.abs(w).max()
    scales = np.concatenate([np.linspace(0.05, 0.2, 3000), -np.linspace(0.05, 0.2, 3000)]) * peak
    codes = np.clip(np.rint(w / scales[:, None]), -8, 7)
    return float(((codes * scales[:, None] - w) ** 2).sum(1).min())


@pytest.mark.parametrize("block", [16, 32, 64])
def test_groups_are_clipped_nearly_as_well_as_can_be(block: int) -> None:
    W = torch.cat(
        [
            torch.randn(12, 128),
            torch.distributions.StudentT(3.0).sample((12, 128)),
            torch.rand(12, 128),
        ]
    )
    q, s = per_group(W, block)
    groups = W.reshape(len(W), -1, block)
    error = (groups - q * s.unsqueeze(-1)).square().sum(-1)
    assert q.min() >= -8
    assert q.max() <= 7
    least = np.array([[best_by_force(g) for g in row] for row in groups.double().numpy()])
    assert error.sum() <= 1.02 * least.sum()
    assert (error.numpy() <= 1.25 * least + 1e-6).all()
    plain = groups.abs().amax(-1, keepdim=True) / 7
    naive = (groups - (groups / plain).round() * plain).square().sum(-1)
    assert error.sum() < 0.85 * naive.sum(), "clipping and the sixteenth code gain something"


def test_packing_is_undone_by_unpacking() -> None:
    q = torch.arange(-8, 8, dtype=torch.int8).repeat(3, 4)
    assert torch.equal(unpack(pack(q)), q.float())
    assert pack(torch.tensor([[-8, 7]], dtype=torch.int8)).tolist() == [[0xF0]], (
        "the first in the lower half"
    )


def test_decoding_is_codes_times_scales() -> None:
    W = torch.randn(10, 64)
    q, s = per_group(W, 32)
    expected = (q * s.unsqueeze(-1)).reshape(10, 64)
    torch.testing.assert_close(decode(pack(q), s), expected)
    torch.testing.assert_close(decode(W.half(), None), W.half().float(), rtol=0, atol=0)
