"""The .ts files of aeon, sktime and tsml: a header of @ lines, then a series a line.

The format is aeon's "`.ts` File Format", https://www.aeon-toolkit.org, API reference. What is read
of the files that aeon 1.6 ships and writes is what it reads, but for labels, which it lower-cases.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from petra.core.errors import DataError, did_you_mean
from petra.core.text import shown, whole_number
from petra.data.fields import as_numbers, read_text
from petra.data.series import Series, together

Lines = Iterator[tuple[int, str]]

_ASIDE = ("#", "%")
_SWITCHES = ("timestamps", "univariate", "equallength", "classlabel", "targetlabel")
_COUNTS = ("dimensions", "dimension", "serieslength")


@dataclass
class _Header:
    """What the @ lines say: switches and counts by lower-case name, and the classes in order."""

    switches: dict[str, bool] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    classes: tuple[str, ...] = ()

    @property
    def channels(self) -> int | None:
        if self.switches.get("univariate"):
            return 1
        return self.counts.get("dimensions", self.counts.get("dimension")) or None

    @property
    def length(self) -> int | None:
        """The length that all series have, None where they may differ or it is not said."""
        same = self.switches.get("equallength", True)
        return self.counts.get("serieslength") or None if same else None


def read_ts(path: str | Path) -> tuple[Series, np.ndarray]:
    """Series and targets of a .ts file, gzipped or not.

    Series are float32 (n, channels, length), or n arrays (channels, length_i) where they are not
    all of one length; missing values (? or NaN) are NaN. Targets are text (n,) under
    ``@classLabel true``, float32 (n,) under ``@targetLabel true``. Raises DataError, naming the
    line and channel, for what contradicts the header or itself, and for files with time stamps or
    without targets.
    """
    lines = enumerate(read_text(path).split("\n"), start=1)
    header = _header(lines, path)
    items: list[np.ndarray] = []
    raw: list[str] = []
    places: list[str] = []
    for number, line in lines:
        if not (text := line.strip()) or text.startswith(_ASIDE):
            continue
        where = f"{path}: line {number}"
        *channels, target = text.split(":")
        item = _item(channels, where)
        _check(item, header, items, where)
        items.append(item)
        raw.append(target.strip())
        places.append(where)
    if not items:
        raise DataError(f"{path}: no series after @data", hint="one series a line was expected")
    return together(items), _targets(raw, header, places)


def _header(lines: Lines, path: str | Path) -> _Header:
    found = _Header()
    for number, line in lines:
        words = line.split()
        if not words or words[0].startswith(_ASIDE):
            continue
        where = f"{path}: line {number}"
        if not words[0].startswith("@"):
            raise DataError(
                f"{where}: {shown(line.strip(), 40)} before @data",
                hint="a .ts file begins with lines # ... and @name value, then @data",
            )
        key = words[0][1:].lower()
        if key == "data":
            _check_header(found, where)
            return found
        if key in _SWITCHES:
            found.switches[key] = _switch(words, where)
        elif key in _COUNTS:
            found.counts[key] = _count(words, where)
        if key == "classlabel":
            found.classes = tuple(words[2:])
    raise DataError(f"{path}: no line @data", hint="the series come after a line @data")


def _switch(words: list[str], where: str) -> bool:
    value = words[1].lower() if len(words) > 1 else ""
    if value not in ("true", "false"):
        raise DataError(f"{where}: {words[0]} is {value or 'nothing'}", hint="true or false")
    return value == "true"


def _count(words: list[str], where: str) -> int:
    value = words[1] if len(words) > 1 else ""
    count = whole_number(value)
    if count is None:
        raise DataError(f"{where}: {words[0]} is {shown(value, 40)}", hint="a whole number")
    return max(count, 0)


def _check_header(found: _Header, where: str) -> None:
    """Raise DataError for what a header asks that this reader does not do."""
    if found.switches.get("timestamps"):
        raise DataError(
            f"{where}: the values have time stamps (@timeStamps true)",
            hint="write the values alone, in their order: 1.5,2.5 instead of (0,1.5),(1,2.5)",
        )
    kinds = [found.switches.get(name, False) for name in ("classlabel", "targetlabel")]
    if sum(kinds) != 1:
        said = "both classes and" if all(kinds) else "neither classes nor"
        raise DataError(
            f"{where}: the header announces {said} regression targets",
            hint="one of @classLabel true a b ... and @targetLabel true",
        )


def _item(channels: list[str], where: str) -> np.ndarray:
    """The values of a line, (channels, length)."""
    if not channels:
        raise DataError(
            f"{where}: no colon", hint="values separated by commas, then a colon and the target"
        )
    rows = [
        as_numbers(channel.split(","), partial(_value, where, number))
        for number, channel in enumerate(channels, start=1)
    ]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise DataError(
                f"{where}: channel {number} has {len(row)} values, channel 1 has {len(rows[0])}",
                hint="the channels of a series are as long as each other",
            )
    return np.stack(rows)


def _value(where: str, channel: int, i: int) -> str:
    return f"{where}, channel {channel}, value {i + 1}"


def _check(item: np.ndarray, header: _Header, before: list[np.ndarray], where: str) -> None:
    channels, length = item.shape
    wanted = header.channels if header.channels is not None or not before else len(before[0])
    if wanted is not None and channels != wanted:
        said = "the header says" if header.channels is not None else "those before have"
        raise DataError(
            f"{where}: {channels} channels, {said} {wanted}",
            hint="channels are separated by colons, the target stands behind the last one",
        )
    if header.length is not None and length != header.length:
        raise DataError(
            f"{where}: {length} values, @seriesLength is {header.length}",
            hint="series of different length need @equalLength false",
        )
    if header.switches.get("equallength") and before and length != before[0].shape[1]:
        raise DataError(
            f"{where}: {length} values, the first series has {before[0].shape[1]}",
            hint="series of different length need @equalLength false",
        )


def _targets(raw: list[str], header: _Header, places: list[str]) -> np.ndarray:
    if header.switches.get("targetlabel"):
        found = as_numbers(raw, lambda i: f"{places[i]}, the target")
        missing = np.flatnonzero(np.isnan(found))
        if len(missing):
            raise DataError(f"{places[missing[0]]}: no target", hint="leave such series out")
        return found
    for place, label in zip(places, raw, strict=True):
        if not label or (header.classes and label not in header.classes):
            hint = did_you_mean(label, header.classes) if header.classes else "one label per series"
            raise DataError(f"{place}: {shown(label, 40)} is no class of the header", hint=hint)
    return np.array(raw)
