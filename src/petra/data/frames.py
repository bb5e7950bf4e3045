"""Columns of a table as what tasks take: numbers, labels, classes, arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from petra.core.errors import ConfigError, DataError, did_you_mean
from petra.core.text import shown
from petra.data.fields import as_numbers, single

if TYPE_CHECKING:
    import pandas as pd


def numbers(frame: pd.DataFrame, columns: str | Sequence[str]) -> np.ndarray:
    """One column as float32 (n,), or several as (n, columns); missing values are NaN.

    Text is read as numbers, with a decimal point; empty, ?, NaN, NA, null and none are missing.
    Raises DataError, naming row and column, for anything else.
    """
    if isinstance(columns, str):
        return _numbers(frame, columns)
    found = [_numbers(frame, name) for name in columns]
    if not found:
        raise ConfigError("numbers: no columns", hint="name at least one")
    return np.stack(found, axis=1)


def _numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    from pandas.api import types

    column = column_of(frame, name)
    place = placer(frame, name)
    if types.is_numeric_dtype(column) and not types.is_complex_dtype(column):
        return single(column.to_numpy(dtype=np.float64, na_value=np.nan), place)
    gaps = column.isna()
    return as_numbers(["" if gap else str(v) for gap, v in zip(gaps, column, strict=True)], place)


def labels(frame: pd.DataFrame, column: str) -> np.ndarray:
    """A column of class labels as text (n,); whole numbers as "3".

    Raises DataError, naming the row, where the label is missing.
    """
    found = words(frame, column)
    for i, word in enumerate(found):
        if word is None:
            raise DataError(
                f"{placer(frame, column)(i)}: no label",
                hint=f"leave such rows out: frame[frame[{column!r}] != '']",
            )
    return np.array(found)


def classes(targets: np.ndarray) -> tuple[str, ...]:
    """The different labels of text targets (n,), sorted, by value where all are numbers: what
    ``petra.classification(..., classes=)`` takes.
    """
    found = np.asarray(targets)
    if found.ndim != 1 or found.dtype.kind not in "US" or not found.size:
        raise DataError(
            f"classes: targets are {found.dtype} of shape {found.shape}",
            hint="labels as text, (n,): targets.astype(str)",
        )
    names = [str(name) for name in np.unique(found)]
    try:
        values = {name: float(name) for name in names}
    except ValueError:
        return tuple(names)
    ordered = not any(np.isnan(value) for value in values.values())
    return tuple(sorted(names, key=values.__getitem__)) if ordered else tuple(names)


def vocabulary(frame: pd.DataFrame, columns: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The different values of each column as text, sorted: the categories that `event_sequences`
    counts from 1. Give the rows of the training split: what only other rows have is as unknown to
    the model then as it will be in use. Keep it with the model: it says what the numbers that the
    model takes mean.
    """
    return {
        name: tuple(sorted({word for word in words(frame, name) if word is not None}))
        for name in columns
    }


def arrays(frame: pd.DataFrame, column: str) -> np.ndarray | list[np.ndarray]:
    """A column of lists, or of lists of lists, as float32 (n, ...), or as n arrays where they are
    not all of one shape. Raises DataError, naming the row, for what holds no numbers."""
    place = placer(frame, column)
    found = [_array(value, place(i)) for i, value in enumerate(column_of(frame, column))]
    alike = len({item.shape for item in found}) == 1
    return np.stack(found) if alike else found


def _array(value: Any, where: str) -> np.ndarray:
    try:
        item = np.array(_plain(value), dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{where}: {shown(value, 40)} is no array of numbers",
            hint="a list of numbers, or a list of such lists of one length",
        ) from error
    if not item.size or not item.ndim:
        raise DataError(f"{where}: an empty list", hint="leave such rows out")
    return single(item.reshape(-1), lambda i: f"{where}, value {i + 1}").reshape(item.shape)


def _plain(value: Any) -> Any:
    """Arrays of arrays, as Arrow's nested lists come, as lists of arrays of numbers."""
    if isinstance(value, np.ndarray):
        return value if value.dtype.kind in "fiub" else _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, str | bytes | dict):
        raise TypeError
    return value


def words(frame: pd.DataFrame, name: str) -> list[str | None]:
    """A column as text, None where a value is missing or empty."""
    column = column_of(frame, name)
    return [None if gap else _word(v) for gap, v in zip(column.isna(), column, strict=True)]


def _word(value: Any) -> str | None:
    whole = isinstance(value, float) and value.is_integer()
    return (str(int(value)) if whole else str(value)) or None


def column_of(frame: pd.DataFrame, name: str) -> pd.Series[Any]:
    """The column of that name. Raises DataError for none, or several."""
    import pandas as pd

    if name not in frame.columns:
        where = f"{frame.attrs['path']}: " if "path" in frame.attrs else ""
        hint = did_you_mean(str(name), map(str, frame.columns))
        raise DataError(f"{where}no column {name!r}", hint=hint)
    column = frame[name]
    if not isinstance(column, pd.Series):
        raise DataError(f"two columns are named {name!r}", hint="give each column its own name")
    return column


def placer(frame: pd.DataFrame, column: str = "") -> Callable[[int], str]:
    """What names the i-th row of a frame, and a column, in messages, by the file where it is known:
    "trips.csv: line 17, column 'speed'".
    """
    where = f"{frame.attrs['path']}: " if "path" in frame.attrs else ""
    kind = frame.index.name or "row"
    which = f", column {column!r}" if column else ""
    return lambda i: f"{where}{kind} {frame.index[i]}{which}"
