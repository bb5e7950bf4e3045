"""What every function of this package asks of its arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def as_costs(costs: ArrayLike) -> Floats:
    """A float (n, m) array in minimisation form.

    Raises ValueError for another shape, NaN or -inf; +inf is allowed.
    """
    array = np.asarray(costs, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"costs have shape {array.shape}, (n, m) with m >= 1 is needed")
    if np.isnan(array).any() or np.isneginf(array).any():
        raise ValueError("costs contain NaN or -inf")
    return array + 0.0  # a copy, in which zero has no sign


def as_violations(violations: ArrayLike | None, n: int) -> Floats:
    """A float (n,) array of non-negative violations; None stands for zeros."""
    if violations is None:
        return np.zeros(n)
    array = np.asarray(violations, dtype=np.float64)
    if array.shape != (n,):
        raise ValueError(f"violations have shape {array.shape}, {(n,)} is needed")
    if np.isnan(array).any() or (array < 0).any():
        raise ValueError("violations contain NaN or negative values")
    return array


def as_reference(reference: ArrayLike, m: int) -> Floats:
    """A finite float (m,) reference point."""
    array = np.asarray(reference, dtype=np.float64)
    if array.shape != (m,) or not np.isfinite(array).all():
        raise ValueError(f"the reference point is {reference!r}, {m} finite values are needed")
    return array
