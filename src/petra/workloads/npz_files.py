"""The .npz files in which sets come: plain arrays by name."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from petra.core.errors import DataError

Arrays = dict[str, np.ndarray]
SERIES = ("X_train", "y_train", "X_test", "y_test")


def read_series(path: Path) -> Arrays:
    """Series of both parts, float32 (n, channels, length), and what belongs to them, (n,), under
    the names of the file. Raises DataError for other arrays.
    """
    found = read_arrays(path, *SERIES)
    for part in ("train", "test"):
        x, y = found[f"X_{part}"], found[f"y_{part}"]
        if x.ndim not in (2, 3) or y.shape != x.shape[:1] or not len(x):
            raise DataError(
                f"{path}: X_{part} has shape {x.shape}, y_{part} has {y.shape}",
                hint="series are (n, length) or (n, channels, length), with one target each",
            )
        wide = x[:, None] if x.ndim == 2 else x
        found[f"X_{part}"] = np.ascontiguousarray(wide, dtype=np.float32)
    return found


def read_arrays(path: Path, *names: str) -> Arrays:
    """Arrays of an .npz file by name. Nothing is unpickled. Raises DataError where one is missing
    or cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if absent := [name for name in names if name not in file.files]:
                raise DataError(
                    f"{path} has no array {absent[0]!r}", hint=f"wanted: {', '.join(names)}"
                )
            return {name: file[name] for name in names}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a readable .npz file: {error}") from error
