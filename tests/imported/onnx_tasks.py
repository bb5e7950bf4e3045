"""Tasks of random data for the files of `onnx_files`."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, TensorDataset

import petra
from petra.tasks.base import Task


def pictures(n: int = 300, *, loader: bool = False) -> Task:
    """Random pictures with random labels, in arrays or in loaders."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(n, 1, 8, 8, generator=random)
    y = torch.randint(0, 10, (n,), generator=random)
    parts = [(x[a:b], y[a:b]) for a, b in ((0, n - 120), (n - 120, n - 60), (n - 60, n))]
    if loader:
        sets = [DataLoader(TensorDataset(*part), batch_size=30) for part in parts]
        return petra.classification(*sets)
    return petra.classification(*parts)


def towers(n: int = 200) -> Task:
    random = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 9, (n, 3), generator=random)
    values = torch.randn(n, 4, generator=random)
    y = torch.randint(0, 9, (n,), generator=random)
    parts = ((0, 100), (100, 150), (150, n))
    return petra.classification(*(((codes[a:b], values[a:b]), y[a:b]) for a, b in parts))
