"""Data in the forms in which people have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import petra
from petra.tasks.base import Task

N = 40


G = torch.Generator().manual_seed(0)


X = torch.randn(N, 3, 8, generator=G)


Y = torch.randint(0, 3, (N,), generator=G)


WORDS = np.array(["cat", "dog", "eel"])[Y.numpy()]


class Net(nn.Module):
    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()
        )
        self.head = nn.Linear(4, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(x))
        return y


class Items(Dataset):  # type: ignore[type-arg]
    def __init__(self, item: Callable[[int], object], n: int = N) -> None:
        self.item, self.n = item, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> object:
        return self.item(i)


def loader(source: Any = None, **options: Any) -> DataLoader[Any]:
    return DataLoader(source or TensorDataset(X, Y), **{"batch_size": 16, **options})


def make(
    source: object, *, outputs: int = 3, regression: bool = False, **options: Any
) -> tuple[nn.Module, Task]:
    torch.manual_seed(0)
    task: Task = (petra.regression if regression else petra.classification)(
        source, source, source, **options
    )
    return Net(outputs).eval(), task


def generator() -> Iterator[object]:
    yield X, Y
