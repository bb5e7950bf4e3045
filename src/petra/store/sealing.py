"""Checksums in the database: checked when a study is opened, kept up with every write, and added to
what an earlier petra wrote."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from petra.core.errors import StoreError
from petra.store.records import DAMAGE_HINT, read_trial
from petra.store.schema import CHECKSUM, MEASUREMENTS, NOTES, SCHEMA_VERSION, SEALED, STUDY, TRIALS
from petra.store.seal import MODULUS, content, note_checksum, study_checksum, trial_checksum


class Writing:
    """One transaction that writes, and what the study's checksum covers as it goes on."""

    def __init__(self, connection: Connection, content: int) -> None:
        self.connection = connection
        self.content = content

    def replaced(self, key: int | str, old: str | None, new: str) -> None:
        """The row `key` has the checksum `new`; before it had `old`, or was not there."""
        gone = content([(key, old)]) if old is not None else 0
        self.content = (self.content + content([(key, new)]) - gone) % MODULUS


def seal(connection: Connection, content: int) -> None:
    """Make the study's checksum that of its row as it is and of `content`."""
    row = connection.execute(select(STUDY)).mappings().one()
    checksum = study_checksum(row, content)
    connection.execute(STUDY.update().values({CHECKSUM: checksum}))


def seal_study(connection: Connection) -> int:
    """Seal a study anew; its content. Cost: one pass over the checksums."""
    found = _content(connection)
    seal(connection, found)
    return found


def check_seal(connection: Connection, where: str) -> int:
    """The content of the study; raises StoreError unless its row, trials and notes are those
    written last. Cost: one pass over the checksums.

    What is in trials and notes is checked against their own checksums where they are read.
    """
    row = connection.execute(select(STUDY)).mappings().one()
    try:
        found = _content(connection)
        intact = row[CHECKSUM] == study_checksum(row, found)
    except (TypeError, ValueError):  # what is no checksum at all
        intact = False
    if not intact:
        raise StoreError(
            f"{where} is damaged: settings, trials or notes are not those that were written",
            hint=DAMAGE_HINT,
        )
    return found


def _content(connection: Connection) -> int:
    keys = ((TRIALS, TRIALS.c.number), (NOTES, NOTES.c.name))
    queries = (select(key, table.c[CHECKSUM]) for table, key in keys)
    return content((key, mark) for query in queries for key, mark in connection.execute(query))


def upgrade(connection: Connection) -> int:
    """Bring a study of schema version 1 to this one, in the caller's transaction: every row that
    makes sense gets its checksum. The content; raises StoreError for a row that makes none."""
    for table in SEALED:
        connection.exec_driver_sql(
            f"ALTER TABLE {table.name} ADD COLUMN {CHECKSUM} VARCHAR(64) DEFAULT '' NOT NULL"
        )
    measured: dict[Any, list[RowMapping]] = defaultdict(list)
    for m in connection.execute(select(MEASUREMENTS)).mappings():
        measured[m["number"]].append(m)
    for row in connection.execute(select(TRIALS)).mappings().all():
        rows = measured[row["number"]]
        read_trial({name: row[name] for name in row if name != CHECKSUM}, rows)
        change = TRIALS.update().where(TRIALS.c.number == row["number"])
        connection.execute(change.values({CHECKSUM: trial_checksum(row, rows)}))
    for row in connection.execute(select(NOTES)).mappings().all():
        change = NOTES.update().where(NOTES.c.name == row["name"])
        connection.execute(change.values({CHECKSUM: note_checksum(row["name"], row["value"])}))
    connection.execute(STUDY.update().values(schema_version=SCHEMA_VERSION))
    return seal_study(connection)
