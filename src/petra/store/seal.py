"""Checksums of what a study's database holds, so that no figure changes without being noticed.

A proposal's covers its row, a trial's its row and all its measurements, a note's its name and
value. The study's own covers its row and the checksums of all these, so that none can go missing
either. They find damage and careless edits; whoever wants to forge a study can compute them too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Table

from petra.store.schema import CHECKSUM, MEASUREMENTS, NOTES, PROPOSALS, STUDY, TRIALS

Row = Mapping[Any, Any]
MODULUS = 1 << 256


def proposal_checksum(row: Row) -> str:
    """Of a row of `proposals`. TypeError for values that are neither text nor numbers."""
    return _digest(["proposal", _values(PROPOSALS.columns.keys(), row)])


def trial_checksum(row: Row, measurements: Iterable[Row], *, table: Table = TRIALS) -> str:
    """Of a row of `table` and its rows of `measurements`, in any order.

    TypeError for values that are neither text nor numbers.
    """
    measured = sorted((_values(MEASUREMENTS.columns.keys(), m) for m in measurements), key=str)
    return _digest(["trial", _values(table.columns.keys(), row), measured])


def note_checksum(name: object, value: object) -> str:
    """Of a note."""
    return _digest(["note", *_values(NOTES.columns.keys(), {"name": name, "value": value})])


def study_checksum(row: Row, content: int) -> str:
    """Of the row of `study` and the `content` of its proposals, trials and notes."""
    return _digest(["study", _values(STUDY.columns.keys(), row), f"{content:064x}"])


def content(members: Iterable[tuple[object, str]]) -> int:
    """What stands for a set of rows, each by its number or name and its checksum: the sum of their
    digests modulo 2**256, which is kept up from write to write at a cost that does not grow.

    TypeError for keys that are neither text nor numbers.
    """
    digests = (_digest(["member", _plain(key), checksum]) for key, checksum in members)
    return sum(int(digest, 16) for digest in digests) % MODULUS


def _values(names: Iterable[str], row: Row) -> list[Any]:
    return [_plain(row[name]) for name in names if name != CHECKSUM]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value + 0.0  # SQLite knows no negative zero
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"a stored value is {type(value).__name__}, neither text nor a number")


def _digest(content: list[Any]) -> str:
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=32).hexdigest()
