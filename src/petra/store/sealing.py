"""Checksums in the database: checked when a study is opened, kept up with every write."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from petra.core.errors import StoreError
from petra.store import checked
from petra.store.checked import DAMAGE_HINT
from petra.store.points import FORM, HEAD, Points, joined
from petra.store.records import OTHER
from petra.store.schema import CHECKSUM, NOTES, SCHEMA_VERSION, STUDY, members
from petra.store.seal import MODULUS, content, note_checksum, study_checksum


@dataclass(frozen=True)
class Content:
    """What stands for a study's proposals and trials, its `rows`, and for its notes; together for
    all that is in it.
    """

    rows: int = 0
    notes: int = 0

    @property
    def total(self) -> int:
        return (self.rows + self.notes) % MODULUS


def seal(connection: Connection, content: Content) -> None:
    """Make the study's checksum that of its row as it is and of `content`."""
    row = connection.execute(select(STUDY)).mappings().one()
    checksum = study_checksum(row, content.total)
    connection.execute(STUDY.update().values({CHECKSUM: checksum}))


def seal_study(connection: Connection) -> Content:
    """Seal a study anew; its content. Cost: one pass over the checksums."""
    found = _content(connection, SCHEMA_VERSION)
    seal(connection, found)
    return found


def check_seal(connection: Connection, where: str, version: int) -> Content:
    """The content of the study; raises StoreError unless its row, proposals, trials and notes are
    those written last. Cost: one pass over the checksums.

    What is in them is checked against their own checksums where they are read.
    """
    row = connection.execute(select(STUDY)).mappings().one()
    try:
        found = _content(connection, version)
        intact = row[CHECKSUM] == study_checksum(row, found.total)
    except (TypeError, ValueError):  # what is no checksum at all
        intact = False
    if not intact:
        raise StoreError(
            f"{where} is damaged: what is in it is not what was written",
            hint=DAMAGE_HINT,
        )
    return found


def _content(connection: Connection, version: int) -> Content:
    *tables, notes = (
        content((key, mark) for key, mark in connection.execute(select(key, key.table.c[CHECKSUM])))
        for key in members(version)
    )
    return Content(sum(tables) % MODULUS, notes)


def kept_points(connection: Connection) -> Points | None:
    """The points of a study of this schema, with its row and all its notes checked against the
    study's checksum, proposals and trials as their sum. None when they are not kept, or are not of
    what is stored now. ValueError for a note that is not as it was written.

    Cost: one pass over the notes.
    """
    study = connection.execute(select(STUDY)).mappings().one()
    rows = connection.execute(select(NOTES)).mappings().all()
    for row in rows:
        if row[CHECKSUM] != note_checksum(row["name"], row["value"]):
            raise ValueError(f"note {row['name']!r}: {OTHER}")
    values = {row["name"]: row["value"] for row in rows}
    form, _, rows_of = str(_parsed(values.get(HEAD, '""'))).partition(" ")
    if form != FORM:
        return None
    notes = content((row["name"], row[CHECKSUM]) for row in rows)
    found = Content(int(rows_of, 16), notes)
    if study[CHECKSUM] != study_checksum(study, found.total):
        return None
    return joined(
        json.loads(values[name]) for name in sorted(values) if name.startswith(f"{HEAD} ")
    )


def _parsed(text: object) -> Any:
    """JSON whose values are checked by whoever takes them. ValueError for what is none."""
    try:
        return json.loads(checked.text(text, "a note"))
    except RecursionError:
        raise ValueError("a note is nested too deeply") from None


def points_kept(connection: Connection, content: Content) -> bool:
    """Whether the points are those of proposals and trials of this `content`."""
    head = connection.execute(select(NOTES.c.value).where(NOTES.c.name == HEAD)).scalar()
    return head == json.dumps(head_value(content))


def head_value(content: Content) -> str:
    """What the note `HEAD` says."""
    return f"{FORM} {content.rows:064x}"
