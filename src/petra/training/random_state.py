"""The state of the global random generators, as plain data and put back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_state(device: str) -> dict[str, Any]:
    """Of Python's, NumPy's and torch's global generators, and of a GPU's, as JSON data."""
    version, words, gauss = random.getstate()
    state: Any = np.random.get_state()
    name, keys, place, has_gauss, cached = state
    found: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [name, keys.tolist(), place, has_gauss, cached],
        "torch": torch.get_rng_state().tolist(),
    }
    if device.startswith("cuda"):
        found["cuda"] = torch.cuda.get_rng_state(device).tolist()
    return found


def set_random_state(state: dict[str, Any], device: str) -> None:
    """Raises ValueError, LookupError or TypeError for what `random_state` never returns."""
    version, words, gauss = state["python"]
    name, keys, *rest = state["numpy"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if device.startswith("cuda"):
        torch.cuda.set_rng_state(torch.tensor(state["cuda"], dtype=torch.uint8), device)


@contextmanager
def kept_random_state(device: str) -> Iterator[None]:
    """Whatever is drawn inside leaves no trace."""
    state = random_state(device)
    try:
        yield
    finally:
        set_random_state(state, device)
