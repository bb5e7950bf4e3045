"""What the workloads of event sequences have in common: networks, padding, and checks of files
whose numbers are then taken for codes and places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from torch import nn

from petra.core.errors import DataError, did_you_mean
from petra.core.ragged import Padding
from petra.networks.events import EventGRU, EventTransformer

NETWORKS: Mapping[str, Callable[..., nn.Module]] = {
    "gru": EventGRU,
    "transformer": EventTransformer,
}
PADDING = Padding(value=0, axis=0, mask="mask")


def check_network(name: str) -> None:
    """Raise DataError for the name of no event encoder."""
    if name not in NETWORKS:
        raise DataError(f"unknown network {name!r}", hint=did_you_mean(name, NETWORKS))


def check_shapes(
    arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], path: Path
) -> None:
    """Raise DataError where an array has another shape, or holds nothing."""
    for name, shape in shapes.items():
        if arrays[name].shape != shape or not arrays[name].size:
            raise DataError(
                f"{path}: {name} has shape {arrays[name].shape}", hint=f"{shape}, at least one item"
            )


def check_codes(name: str, codes: np.ndarray, count: int, path: Path, *, first: int = 0) -> None:
    """Raise DataError unless all are whole numbers from `first`, one of `count`. Others would count
    from the end, or be cut to whole ones, and nobody would see it.
    """
    if codes.dtype.kind not in "iufb":
        raise DataError(f"{path}: {name} is {codes.dtype}", hint="an array of numbers")
    odd = np.flatnonzero(~np.isin(codes, np.arange(first, first + count)))
    if len(odd):
        raise DataError(
            f"{path}: {name}: {codes.reshape(-1)[odd[0]]} in place {odd[0]}",
            hint=f"whole numbers from {first} to {first + count - 1}",
        )


def check_finite(name: str, numbers: np.ndarray, path: Path) -> None:
    """Raise DataError unless all are finite numbers."""
    if numbers.dtype.kind not in "iuf" or not np.isfinite(numbers).all():
        raise DataError(f"{path}: {name} is missing somewhere", hint="an array of finite numbers")


def check_offsets(offsets: np.ndarray, rows: int, path: Path) -> None:
    """Raise DataError unless the offsets (n + 1,) part so many rows into items of one and more."""
    whole = offsets.ndim == 1 and offsets.dtype.kind in "iu" and len(offsets) > 1
    rising = whole and bool((np.diff(offsets.astype(np.int64)) > 0).all())
    if not rising or offsets[0] != 0 or offsets[-1] != rows:
        raise DataError(
            f"{path}: offsets do not part {rows} events into items",
            hint="whole numbers that rise from 0 to the number of events, one more than items",
        )


def rows_of(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Numbers of the rows of items that begin at `starts` and have `lengths` rows, one item behind
    the other.
    """
    ends = np.cumsum(lengths)
    within = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    rows: np.ndarray = np.repeat(starts, lengths) + within
    return rows
