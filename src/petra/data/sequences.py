"""Tables as series and event sequences: a row an item, or a row a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from petra.core.errors import ConfigError, DataError
from petra.core.text import shown
from petra.data.frames import column_of, labels, numbers, placer, words
from petra.data.series import Series, cut, together
from petra.data.tables import NAMELESS

if TYPE_CHECKING:
    import pandas as pd

Events = dict[str, np.ndarray | list[np.ndarray]]

NUMERIC, STATIC = "numeric", "static"
"""Names of the inputs that hold an event's numbers and an item's."""


def wide_series(
    frame: pd.DataFrame,
    *,
    label: str = "",
    target: str = "",
    steps: Sequence[str] | None = None,
    unequal: bool = False,
) -> tuple[Series, np.ndarray]:
    """A series a row: float32 (n, 1, length), and class labels (text) or regression targets, (n,).

    `label` or `target` names the column of one or the other; `steps` are the columns of the values,
    all others by default. With `unequal`, missing values at the end of a row are no part of the
    series, which are then a list of (1, length) unless they turn out equally long. Raises
    DataError naming row and column, and for a column without a name, such as row numbers, that
    would be a step.
    """
    y = _targets(frame, label, target)
    values = _steps(frame, label or target) if steps is None else _listed("steps", steps)
    rows = list(numbers(frame, values))
    if unequal:
        rows = cut(rows, placer(frame))
    return together([row[None] for row in rows]), y


def long_series(
    frame: pd.DataFrame,
    *,
    item: str,
    channels: Sequence[str],
    time: str = "",
    label: str = "",
    target: str = "",
) -> tuple[Series, np.ndarray]:
    """A step a row: float32 (n, channels, length), or n arrays (channels, length_i) where they are
    not all of one length, and labels or targets (n,).

    `item` names the column that says which series a row belongs to; series come in the order in
    which they first appear, steps in that of `time`, or as they stand. `label` or `target` must be
    the same in all rows of a series. Raises DataError naming row and column.
    """
    groups = _Groups.of(frame, item, time)
    y = groups.constant(_targets(frame, label, target), label or target)
    values = numbers(frame, _listed("channels", channels))
    return together([part.T.copy() for part in groups.parts(values)]), y


def event_sequences(
    frame: pd.DataFrame,
    *,
    item: str,
    categories: Mapping[str, Sequence[str]] | None = None,
    numeric: Sequence[str] = (),
    static: Sequence[str] = (),
    time: str = "",
    label: str = "",
    target: str = "",
) -> tuple[Events, np.ndarray]:
    """An event a row: inputs by name for `petra.ragged`, and labels or targets (n,).

    categories: known values by column (`vocabulary`); each becomes a list of int64 arrays
    (length,): 1 for the first value and so on, one more than there are for any other or none, so
    that an embedding has ``len(values) + 2`` rows, 0 being padding. numeric: columns of numbers,
    together a list of float32 (length, columns) under the name ``numeric``; with `time`, their last
    column is log(1 + gap) to the event before, in seconds where times are dates, 0 for the first.
    static: columns of numbers that are the same in all rows of an item, float32 (n, columns) under
    ``static``. Items come in the order in which they first appear, events in that of `time`, or as
    they stand. Raises DataError naming row and column.
    """
    groups = _Groups.of(frame, item, time)
    y = groups.constant(_targets(frame, label, target), label or target)
    found: Events = {}
    for name, values in (categories or {}).items():
        if name in (NUMERIC, STATIC):
            raise ConfigError(
                f"categories: {name!r} is the name of another input",
                hint="rename the column: frame.rename(columns=...)",
            )
        found[name] = groups.parts(_codes(frame, name, values))
    columns = [numbers(frame, name) for name in _listed("numeric", numeric)]
    if time:
        columns.append(groups.gaps())
    if columns:
        found[NUMERIC] = groups.parts(np.stack(columns, axis=1))
    if not found:
        raise ConfigError(
            "event_sequences: no columns", hint="name categories, numeric columns or a time"
        )
    if static:
        names = _listed("static", static)
        columns = [groups.constant(numbers(frame, name), name) for name in names]
        found[STATIC] = np.stack(columns, axis=1)
    return found, y


def _listed(what: str, columns: Sequence[str]) -> Sequence[str]:
    """Names of columns. Raises ConfigError for a single one, whose letters would be taken."""
    if isinstance(columns, str):
        raise ConfigError(f"{what}: {columns!r}", hint=f"a list of names: [{columns!r}]")
    return columns


def _steps(frame: pd.DataFrame, other: str) -> list[str]:
    """All columns but `other`."""
    found = [name for name in frame.columns if name != other]
    if nameless := set(frame.attrs.get(NAMELESS, ())) & set(found):
        raise DataError(
            f"{placer(frame, min(nameless))(0)}: it has no name, and would be a step of the series",
            hint=f"if it holds row numbers: frame.drop(columns={min(nameless)!r}); else name the"
            " columns of the values: steps=",
        )
    return found


def _targets(frame: pd.DataFrame, label: str, target: str) -> np.ndarray:
    if bool(label) == bool(target):
        raise ConfigError(
            "label and target: " + ("both are given" if label else "neither is given"),
            hint="label names a column of classes, target one of numbers to predict",
        )
    if label:
        return labels(frame, label)
    found = numbers(frame, target)
    gaps = np.flatnonzero(np.isnan(found))
    if len(gaps):
        raise DataError(
            f"{placer(frame, target)(int(gaps[0]))}: no target", hint="leave such rows out"
        )
    return found


def _codes(frame: pd.DataFrame, name: str, values: Sequence[str]) -> np.ndarray:
    text = not isinstance(values, str) and all(isinstance(value, str) for value in values)
    if not text or len(set(values)) < len(values):
        raise ConfigError(
            f"categories: {name}: {shown(values, 60)}",
            hint="a list of different values, as text: petra.data.vocabulary(frame, [...])",
        )
    number = {value: i for i, value in enumerate(values, start=1)}
    other = len(values) + 1
    return np.array([number.get(word or "", other) for word in words(frame, name)], dtype=np.int64)


def times(frame: pd.DataFrame, name: str) -> np.ndarray:
    """A column of times as float64 (n,): seconds of dates and of time spans, numbers as they are.
    Text is numbers where any of it reads as one, so dates have their hyphens (ISO 8601, 2024-05-31
    and not 20240531). Raises DataError, naming the row, for others and for missing ones."""
    import pandas as pd
    from pandas.api import types

    column = column_of(frame, name)
    if types.is_timedelta64_dtype(column):
        column = column.dt.total_seconds()
    if not types.is_numeric_dtype(column) and not types.is_datetime64_any_dtype(column):
        plain = pd.to_numeric(column, errors="coerce")
        if plain.notna().any():
            column = plain
        else:
            column = pd.to_datetime(column, format="ISO8601", errors="coerce", utc=True)
    if types.is_datetime64_any_dtype(column):
        column = (column - column.min()).dt.total_seconds()
    found: np.ndarray = column.to_numpy(dtype=np.float64, na_value=np.nan)
    odd = np.flatnonzero(~np.isfinite(found))
    if len(odd):
        value = column_of(frame, name).iloc[int(odd[0])]
        said = "no time" if pd.isna(value) or value == "" else f"{str(value)[:40]!r} is no time"
        raise DataError(
            f"{placer(frame, name)(int(odd[0]))}: {said}",
            hint="a number, or a date as 2024-05-31 or 2024-05-31T14:30:00; convert others with"
            " pandas.to_datetime",
        )
    return found


@dataclass(frozen=True)
class _Groups:
    """Which rows make an item: their numbers (rows,), item after item, and its lengths (n,)."""

    frame: pd.DataFrame
    rows: np.ndarray
    lengths: np.ndarray
    moments: np.ndarray | None

    @staticmethod
    def of(frame: pd.DataFrame, item: str, time: str) -> _Groups:
        import pandas as pd

        if not len(frame):
            raise DataError("the table has no rows", hint="at least one was expected")
        names = words(frame, item)
        for i, name in enumerate(names):
            if name is None:
                raise DataError(
                    f"{placer(frame, item)(i)}: no item", hint="every row belongs to an item"
                )
        codes, _ = pd.factorize(np.array(names, dtype=object))
        moments = times(frame, time) if time else None
        rows = np.lexsort((codes,) if moments is None else (moments, codes))
        return _Groups(frame, rows, np.bincount(codes), moments)

    @property
    def firsts(self) -> np.ndarray:
        """Where each item begins among the sorted rows."""
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]])

    def parts(self, column: np.ndarray) -> list[np.ndarray]:
        """A column or several, (rows, ...), as an array for each item."""
        return np.split(column[self.rows], self.firsts[1:])

    def gaps(self) -> np.ndarray:
        """log(1 + time since the event before), float32 (rows,) in the order of the frame."""
        assert self.moments is not None
        steps = np.diff(self.moments[self.rows], prepend=0.0)
        steps[self.firsts] = 0.0
        found = np.empty(len(steps), dtype=np.float32)
        found[self.rows] = np.log1p(steps)
        return found

    def constant(self, column: np.ndarray, name: str) -> np.ndarray:
        """One value (n,) of a column (rows,) for each item. Raises DataError where an item has
        several."""
        sorted_column = column[self.rows]
        first: np.ndarray = sorted_column[self.firsts]
        same = sorted_column == np.repeat(first, self.lengths)
        if sorted_column.dtype.kind == "f":
            same |= np.isnan(sorted_column) & np.isnan(np.repeat(first, self.lengths))
        if not same.all():
            at = int((~same).argmax())
            item = int(np.searchsorted(np.cumsum(self.lengths), at, side="right"))
            raise DataError(
                f"{placer(self.frame, name)(int(self.rows[at]))}: {sorted_column[at]}, an earlier"
                f" row of the same item has {first[item]}",
                hint="it is the same in all rows of an item",
            )
        return first
