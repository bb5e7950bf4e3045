"""A small network, its data, and what makes variants of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import petra

G = torch.Generator().manual_seed(0)


X, Y = torch.randn(60, 8, generator=G), torch.randint(0, 4, (60,), generator=G)


TASK = petra.classification((X[:30], Y[:30]), (X[30:50], Y[30:50]), (X[50:], Y[50:]))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(torch.relu(self.a(x)))
        return y


def like(forward: Callable[[Any, Tensor], object], **attributes: Any) -> nn.Module:
    """A Net with another forward and further attributes."""
    net: Any = type("Changed", (Net,), {"forward": forward})()
    for name, value in attributes.items():
        setattr(net, name, value)
    return net  # type: ignore[no-any-return]


def plain(self: Any, x: Tensor) -> Tensor:
    return Net.forward(self, x)


def loader(n: int, size: int, **options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(X[:n], Y[:n]), batch_size=size, **options)
