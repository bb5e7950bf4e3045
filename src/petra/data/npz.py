"""NumPy's .npz files, read without pickle."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from petra.core.errors import DataError, did_you_mean
from petra.core.text import first_line, printable

_BROKEN = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error),
    RuntimeError,  # encrypted, or packed in another way
    *(MemoryError, OverflowError),  # a header that asks for more than there is
    *(ValueError, TypeError, IndexError),  # objects, which would be unpickled; other headers
    *(SyntaxError, tokenize.TokenError),  # a header is a line of Python's literals
)


def read_npz(
    path: str | Path, *, inputs: str | Sequence[str], targets: str
) -> tuple[np.ndarray | dict[str, np.ndarray], np.ndarray]:
    """Inputs and targets of an .npz file by the names of its arrays: one array, or several by name.

    Raises DataError for other names, arrays of Python objects (nothing is unpickled), and arrays
    that are not as long as each other.
    """
    names = [inputs] if isinstance(inputs, str) else list(inputs)
    found = read_arrays(Path(path), *names, targets)
    wanted = len(found[targets]) if found[targets].ndim else -1
    for name in (targets, *names):
        if not found[name].ndim or len(found[name]) != wanted:
            raise DataError(
                f"{path}: {name} has shape {found[name].shape}, {targets} has"
                f" {found[targets].shape}",
                hint="one row per item, as many in all arrays",
            )
    if not wanted:
        raise DataError(f"{path}: {targets} is empty", hint="give at least one item")
    x = found[inputs] if isinstance(inputs, str) else {name: found[name] for name in names}
    return x, found[targets]


def read_arrays(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Arrays of an .npz file by name, all where no name is given. Nothing is unpickled. Raises
    DataError where one is missing or cannot be read.
    """
    try:
        opened = np.load(path, allow_pickle=False)
        if not isinstance(opened, np.lib.npyio.NpzFile):
            raise DataError(f"{path} holds a single array", hint="an .npz file was expected")
        with opened as file:
            for name in names:
                if name not in file.files:
                    raise DataError(
                        f"{path} has no array {name!r}", hint=did_you_mean(name, file.files)
                    )
            found = {name: file[name] for name in names or file.files}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file", hint="a path that exists") from None
    except _BROKEN as error:
        raise DataError(
            f"{path}: it cannot be read: {printable(first_line(str(error)))}",
            hint="an .npz file of plain arrays was expected",
        ) from error
    for name, array in found.items():
        if not isinstance(array, np.ndarray):  # bytes: a member that is none
            raise DataError(f"{path}: {name} is no array", hint="write it with numpy.savez")
    return found
