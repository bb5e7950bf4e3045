"""What the front of a study is computed from, kept so that it can be read at once and checked.

For every trial its status, whether it was evaluated in full, its seconds, what it was left early
for, and the values of its metrics without their errors, in columns; `BLOCK` trials to a note. A
note more holds the content (`petra.store.seal`) of all proposals and trials, so that the study's
own checksum, which covers these notes too, can be checked without a look at any of them. A note is
written again with every trial of its block, at a cost that does not grow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petra.core.measurement import LARGEST
from petra.core.objective import Metrics
from petra.core.text import printable
from petra.core.trial import SCREEN, Trial, TrialStatus
from petra.store.checked import mapping, sequence, whole

BLOCK = 64  # trials
LONGEST_KIND = 100  # characters
COLUMNS = ("numbers", "statuses", "full", "seconds", "left")
HEAD = "points"  # the name of the note with the content of proposals and trials
FORM = "2"  # of the notes; those of another form are made again
AUDITED = "audited"
"""Said of a trial that would have been left early, but was evaluated in full."""


def block_name(number: int) -> str:
    """The name of the note with the block of trial `number`."""
    return f"{HEAD} {number // BLOCK:08d}"


@dataclass(frozen=True)
class Points:
    """Trials in columns, in any order; values that a trial lacks are NaN. `left` says what a trial
    was screened for, `AUDITED`, or nothing.
    """

    numbers: NDArray[np.int64]
    statuses: tuple[str, ...]
    full: NDArray[np.bool_]
    seconds: NDArray[np.float64]
    left: tuple[str, ...]
    val: Mapping[str, NDArray[np.float64]]
    test: Mapping[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass
class Block:
    """The trials of some notes as plain data, which grows."""

    numbers: list[int] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    full: list[bool] = field(default_factory=list)
    seconds: list[float | None] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    values: dict[str, dict[str, list[float | None]]] = field(
        default_factory=lambda: {"val": {}, "test": {}}
    )

    def put(self, trial: Trial) -> None:
        """Take in a trial."""
        for split, metrics in (("val", trial.metrics), ("test", trial.test)):
            self._append(self.values[split], {name: m.mean for name, m in metrics.items()})
        self.numbers.append(trial.number)
        self.statuses.append(trial.status.value)
        self.full.append(trial.fidelity.full)
        self.seconds.append(round(float(trial.seconds), 3))
        self.left.append(_left(trial))

    def put_test(self, number: int, metrics: Metrics) -> None:
        """Take in what a trial that is here was found to be on the test split."""
        at, columns = self.numbers.index(number), self.values["test"]
        for name, m in metrics.items():
            columns.setdefault(name, [None] * len(self.numbers))[at] = float(m.mean)

    def extend(self, more: Block) -> None:
        """Take in another's trials."""
        for split, columns in more.values.items():
            mine = self.values[split]
            for name in mine.keys() | columns.keys():
                own = mine.setdefault(name, [None] * len(self.numbers))
                own.extend(columns.get(name, [None] * len(more.numbers)))
        self.numbers += more.numbers
        self.statuses += more.statuses
        self.full += more.full
        self.seconds += more.seconds
        self.left += more.left

    def _append(self, columns: dict[str, list[float | None]], row: Mapping[str, float]) -> None:
        for name in row.keys() - columns.keys():
            columns[name] = [None] * len(self.numbers)
        for name, column in columns.items():
            column.append(float(row[name]) if name in row else None)

    def as_dict(self) -> dict[str, object]:
        """JSON data, for `from_dict`."""
        return {name: getattr(self, name) for name in COLUMNS} | self.values

    @staticmethod
    def from_dict(value: object) -> Block:
        """Read `as_dict` data; ValueError for what is not of that form."""
        data = mapping(value, "a block")
        numbers, statuses, full, seconds, left = (
            sequence(data.get(name), name) for name in COLUMNS
        )
        values = {split: mapping(data.get(split), split) for split in ("val", "test")}
        columns = [c for of in values.values() for c in of.values()]
        lengths = {len(sequence(c, "values")) for c in (statuses, full, seconds, left, *columns)}
        if lengths != {len(numbers)} or set(map(type, full)) != {bool}:
            raise ValueError("the columns of a block do not fit each other")
        whole(min(numbers), "a number"), whole(max(numbers), "a number")
        if set(map(type, numbers)) != {int} or not all(map(TrialStatus, set(statuses))):
            raise ValueError("a block has what is no number, or no status")
        if set(map(type, left)) != {str} or max(map(len, left)) > LONGEST_KIND:
            raise ValueError("a block has an odd reason for which a trial was left")
        return Block(numbers, statuses, full, seconds, left, values)

    def points(self) -> Points:
        """The same in arrays. ValueError for values that are no numbers to compute with."""
        val, test = (
            {name: _numbers(column) for name, column in self.values[split].items()}
            for split in ("val", "test")
        )
        numbers = np.array(self.numbers, dtype=np.int64)
        full, seconds = np.array(self.full, dtype=bool), _numbers(self.seconds)
        return Points(numbers, tuple(self.statuses), full, seconds, tuple(self.left), val, test)


def points_of(trials: Iterable[Trial]) -> Points:
    """The same of trials that are not stored."""
    everything = Block()
    for trial in trials:
        everything.put(trial)
    return everything.points()


def _left(trial: Trial) -> str:
    if trial.status is TrialStatus.SCREENED and trial.failure:
        return printable(trial.failure.kind)[:LONGEST_KIND]
    audited = trial.measured and trial.trace and trial.trace[-1].stage == SCREEN
    return AUDITED if audited else ""


def joined(blocks: Iterable[Any]) -> Points:
    """All trials of blocks as plain data. ValueError for what is not of that form."""
    everything = Block()
    for block in blocks:
        everything.extend(Block.from_dict(block))
    if len(set(everything.numbers)) < len(everything.numbers):
        raise ValueError("a trial is in two blocks")
    return everything.points()


def _numbers(column: list[float | None]) -> NDArray[np.float64]:
    """A column with NaN for None. ValueError for text, NaN, infinities and what is too large."""
    if {type(value) for value in column} <= {float, type(None)}:
        found = np.array(column, dtype=np.float64)
        if not (abs(found) > LARGEST).any() and np.isnan(found).sum() == column.count(None):
            return found
    raise ValueError("a block holds what is not a number")
