"""Counting works wherever a model may be run."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petra.model.flops import macs_by_module


class Queries(nn.Module):
    """Parameters, views of them and tensors made of them go into layers as arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.other = torch.randn(1, 1, 4, requires_grad=True)
        self.early = self.token[0]
        self.layer, self.attention = nn.Linear(4, 4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.layer(self.token.expand(len(x), -1, -1))
        self.layer(self.token)
        self.layer(self.early)
        self.layer(self.other.expand(len(x), -1, -1))
        self.kept = self.layer(self.token.mean(1)) if self.kept is None else self.layer(self.kept)
        return self.attention(
            tokens, torch.cat([tokens, x], 1), x[:, :1].expand(-1, x.shape[1] + 1, -1)
        )[0]


def test_views_of_parameters_as_arguments_of_layers() -> None:
    model = Queries()
    for x in (
        torch.randn(2, 5, 4),
        torch.randn(2, 5, 4, requires_grad=True),
        torch.randn(2, 1, 4).expand(2, 5, 4),
    ):
        macs = macs_by_module(model, lambda m, x=x: m(x))  # type: ignore[misc]
        assert macs["layer"] == 4 * 4 * (2 + 1 + 1 + 2 + 1)
        assert macs["attention"] == 4 * 4 * 2 * (1 + 6 + 6 + 1) + 2 * 2 * 6 * 4
        assert macs[""] == macs["layer"] + macs["attention"]
        model(x)  # with gradients: what is kept has a history
