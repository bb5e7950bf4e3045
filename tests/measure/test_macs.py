"""Multiply-accumulates against sums made by hand, for what torch's own counter passes over on
CPUs.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from petra.measure.operations import count_macs
from petra.model.flops import macs_by_module


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, 2, 8).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, 16))


def test_attention_products_count() -> None:
    t = 10
    expected = t * (16 * 48 + 16 * 16) + 2 * t * t * 16
    assert count_macs(SelfAttention().eval(), torch.randn(3, t, 16)) == expected


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrences_count(kind: type[nn.RNNBase], gates: int, directions: int) -> None:
    layer = kind(12, 8, num_layers=2, batch_first=True, bidirectional=directions == 2).eval()
    t = 7
    first, second = gates * 8 * (12 + 8), gates * 8 * (8 * directions + 8)
    assert count_macs(layer, torch.randn(3, t, 12)) == t * directions * (first + second)


def test_fused_transformer_layers_count_as_their_parts() -> None:
    layer, t = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval(), 6
    parts = t * (16 * 48 + 16 * 16 + 2 * 16 * 32) + 2 * t * t * 16
    assert count_macs(layer, torch.randn(4, t, 16)) == parts


def test_each_module_has_its_share() -> None:
    model = SelfAttention().eval()
    counts = macs_by_module(model, lambda m: m(torch.randn(2, 5, 16)))
    assert counts["qkv"] == 2 * 5 * 16 * 48
    assert counts["out"] == 2 * 5 * 16 * 16
    assert counts[""] > counts["qkv"] + counts["out"]
