"""Series of the archives in .npz files, four plain arrays to a set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from petra.core.errors import DataError
from petra.data.npz import read_arrays

Arrays = dict[str, np.ndarray]
SERIES = ("X_train", "y_train", "X_test", "y_test")


def read_series(path: Path) -> Arrays:
    """Series of both parts, float32 (n, channels, length), and what belongs to them, (n,), under
    the names of the file. Raises DataError for other arrays.
    """
    found = read_arrays(path, *SERIES)
    for part in ("train", "test"):
        x, y = found[f"X_{part}"], found[f"y_{part}"]
        if x.ndim not in (2, 3) or y.shape != x.shape[:1] or not x.size:
            raise DataError(
                f"{path}: X_{part} has shape {x.shape}, y_{part} has {y.shape}",
                hint="series are (n, length) or (n, channels, length), with one target each",
            )
        if x.dtype.kind not in "fiub" or y.dtype.kind not in "fiub":
            raise DataError(
                f"{path}: X_{part} is {x.dtype}, y_{part} is {y.dtype}", hint="arrays of numbers"
            )
        wide = x[:, None] if x.ndim == 2 else x
        found[f"X_{part}"] = np.ascontiguousarray(wide, dtype=np.float32)
    first, second = found["X_train"], found["X_test"]
    if first.shape[1:] != second.shape[1:]:
        raise DataError(
            f"{path}: series to train on are {first.shape[1:]}, those to test {second.shape[1:]}",
            hint="both parts have one number of channels and one length",
        )
    return found
