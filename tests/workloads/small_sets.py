"""Sets like those of the archives, small, under a data root of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_series(
    root: Path, name: str, *, train: int = 48, test: int = 30, length: int = 24
) -> Path:
    """A set of two classes, called -1 and 1: sines of one frequency and of another."""
    random = np.random.default_rng(0)

    def part(n: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(n) % 2
        waves = np.sin(np.linspace(0, 6, 24) * (1 + labels[:, None]))
        noise = random.normal(0, 0.1, (n, 24))
        return (waves + noise).astype(np.float32), 2 * labels - 1

    return save(root / f"{name}.npz", part(train), part(test))


def write_values(root: Path, name: str, *, train: int = 40, test: int = 20) -> Path:
    """Two channels of 16 steps whose mean is the target, in hundreds; some values are missing."""
    random = np.random.default_rng(1)

    def part(n: int) -> tuple[np.ndarray, np.ndarray]:
        x = random.normal(0, 1, (n, 2, 16)).astype(np.float32)
        y = (300 + 100 * x.mean((1, 2))).astype(np.float32)
        x[random.random(x.shape) < 0.02] = np.nan
        return x, y

    return save(root / f"{name}.npz", part(train), part(test))


def save(path: Path, *parts: tuple[np.ndarray, np.ndarray]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ("X_train", "y_train", "X_test", "y_test")
    np.savez(path, **dict(zip(names, (array for part in parts for array in part), strict=True)))
    return path
