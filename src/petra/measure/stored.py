"""A split as it is written for the measuring process, and arrays by name in a file.

No torch, no pickles.

Items of one shape are one .npy per input. Items of different length are `PADDING`, ``lengths.npy``
and, by input, ``values/*.npy`` (item after item) and ``items/*.npy`` (what has one shape).
`INTERFACE` says what the model takes and returns.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from petra.core.errors import DataError, PetraError
from petra.core.interface import Interface
from petra.core.ragged import Padding, Ragged
from petra.runtimes.base import Arrays
from petra.store.checked import from_json, mapping

PREDICTION_BATCH = 256
"""Items of one shape predicted at once. Parity compares predictions made in the same batches."""

INTERFACE, PADDING = "interface.json", "padding.json"
_DAMAGED = "remove it: it is written again when the study goes on"


@dataclass(frozen=True)
class Dense:
    """Items of one shape: (n, ...) by input name."""

    columns: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def in_batches(self, most: int | None = None) -> Iterator[tuple[np.ndarray, Arrays]]:
        """Numbers and arrays of the first `most` items (all by default), in order."""
        n = len(self) if most is None else min(most, len(self))
        for start in range(0, n, PREDICTION_BATCH):
            index = np.arange(start, min(start + PREDICTION_BATCH, n))
            yield index, take(self.columns, start, len(index))

    def batch(self, index: np.ndarray) -> Arrays:
        """The items of these numbers as arrays by input name."""
        return {name: np.ascontiguousarray(column[index]) for name, column in self.columns.items()}

    def at_length(self, length: int, count: int) -> Arrays:
        """The first `count` items, which have one length."""
        return take(self.columns, 0, count)


@dataclass(frozen=True)
class Stored:
    """A written split, memory-mapped, and the interface it was written for, None where nobody
    said."""

    items: Dense | Ragged
    interface: Interface | None = None

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths at which speed is measured, (0,) for items of one shape."""
        return (self.interface.lengths if self.interface else ()) or (0,)


def take(inputs: Mapping[str, np.ndarray], start: int, count: int) -> Arrays:
    """`count` items from `start`, wrapping around at the end so that any batch size can be timed.

    Copies, because some runtimes copy what is read-only, as memory-mapped arrays are, in every
    call.
    """
    n = len(next(iter(inputs.values())))
    if start + count <= n:
        return {k: np.array(v[start : start + count], order="C") for k, v in inputs.items()}
    index = np.arange(start, start + count) % n
    return {k: np.ascontiguousarray(v[index]) for k, v in inputs.items()}


def write_dense(columns: Mapping[str, np.ndarray], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, column in columns.items():
        np.save(directory / f"{name}.npy", column, allow_pickle=False)


def write_ragged(data: Ragged, directory: Path) -> None:
    write_dense({"lengths": data.lengths}, directory)
    write_dense(data.values, directory / "values")
    write_dense(data.items, directory / "items")
    (directory / PADDING).write_text(json.dumps(asdict(data.padding)), encoding="utf-8")


def write_interface(interface: Interface, directory: Path) -> None:
    (directory / INTERFACE).write_text(json.dumps(interface.as_dict()), encoding="utf-8")


def load_split(directory: Path) -> Stored:
    """A split that was written. Raises DataError for what petra does not write."""
    described = directory / INTERFACE
    try:
        interface = Interface.from_dict(_plain(described)) if described.is_file() else None
        if not (directory / PADDING).is_file():
            return Stored(Dense(_mapped(directory)), interface)
        data = Ragged(
            _mapped(directory / "values"),
            np.load(directory / "lengths.npy", allow_pickle=False),
            Padding(**_plain(directory / PADDING)),
            _mapped(directory / "items"),
        )
        _check(data)
    except PetraError:
        raise
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{directory}: is damaged: {error}", hint=_DAMAGED) from error
    return Stored(data, interface)


def _plain(file: Path) -> dict[str, Any]:
    return mapping(from_json(file.read_text(encoding="utf-8"), file.name), file.name)


def _mapped(directory: Path) -> Arrays:
    files = sorted(directory.glob("*.npy"))
    return {file.stem: np.load(file, mmap_mode="r", allow_pickle=False) for file in files}


def _check(data: Ragged) -> None:
    lengths = data.lengths
    if lengths.ndim != 1 or lengths.dtype != np.int64 or not len(lengths) or lengths.min() < 1:
        raise ValueError("the lengths are no positive whole numbers")
    if not data.values or any(len(v) != lengths.sum() for v in data.values.values()):
        raise ValueError("values and lengths do not agree")
    if any(len(column) != len(lengths) for column in data.items.values()):
        raise ValueError("there are more or fewer items than lengths")


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays of any names, in their order, as an .npz file."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def load_arrays(path: Path) -> Arrays:
    """What `save_arrays` wrote."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
