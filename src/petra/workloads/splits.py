"""Splits of sets that come without a part for validation."""

from __future__ import annotations

import numpy as np


def held_out(
    n: int, share: float, *, labels: np.ndarray | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the items that stay and of those set aside, a `share` of `n`, by a fixed draw; of
    each of the `labels` (n,) the same share, where they are given.
    """
    from sklearn.model_selection import train_test_split

    stay, aside = train_test_split(
        np.arange(n), test_size=share, random_state=seed, stratify=labels
    )
    return stay, aside
