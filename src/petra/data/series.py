"""Series as readers return them: one array where all are of one length, a list otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from petra.core.errors import DataError

Series = np.ndarray | list[np.ndarray]
"""float32 (n, channels, length), or n arrays (channels, length_i) for `petra.ragged`."""


def together(items: Sequence[np.ndarray]) -> Series:
    """Arrays of all items as one array where they have one shape."""
    alike = len({item.shape for item in items}) == 1
    return np.stack(items) if alike else list(items)


def cut(rows: Sequence[np.ndarray], place: Callable[[int], str]) -> list[np.ndarray]:
    """Rows (length,) without the missing values at their ends. Raises DataError for one that holds
    nothing else."""
    found = []
    for i, row in enumerate(rows):
        there = np.flatnonzero(~np.isnan(row))
        if not len(there):
            raise DataError(f"{place(i)}: all values are missing", hint="leave such items out")
        found.append(row[: there[-1] + 1])
    return found
