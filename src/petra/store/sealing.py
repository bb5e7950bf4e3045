"""Checksums in the database: checked when a study is opened, kept up with every write, and added to
what an earlier petra wrote."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from petra.core.errors import StoreError
from petra.store.records import DAMAGE_HINT, read_trial
from petra.store.schema import CHECKSUM, MEASUREMENTS, NOTES, SCHEMA_VERSION, SEALED, STUDY, TRIALS
from petra.store.seal import note_checksum, study_checksum, trial_checksum


def check_seal(connection: Connection, where: str) -> None:
    """Raise StoreError unless the study's row, its trials and its notes are those written last.

    What is in trials and notes is checked against their own checksums where they are read.
    """
    row = connection.execute(select(STUDY)).mappings().one()
    try:
        intact = row[CHECKSUM] == _seal(connection, row)
    except TypeError:  # values that cannot even be sorted
        intact = False
    if not intact:
        raise StoreError(
            f"{where} is damaged: settings, trials or notes are not those that were written",
            hint=DAMAGE_HINT,
        )


def seal_study(connection: Connection) -> None:
    """Make the study's checksum that of the present content. Cost: one pass over the checksums."""
    row = connection.execute(select(STUDY)).mappings().one()
    connection.execute(STUDY.update().values({CHECKSUM: _seal(connection, row)}))


def _seal(connection: Connection, row: RowMapping) -> str:
    trials = connection.execute(select(TRIALS.c.number, TRIALS.c.checksum)).mappings().all()
    notes = connection.execute(select(NOTES.c.name, NOTES.c.checksum)).mappings().all()
    return study_checksum(row, trials, notes)


def upgrade(connection: Connection) -> None:
    """Bring a study of schema version 1 to this one, in the caller's transaction: every row that
    makes sense gets its checksum. Raises StoreError for one that does not."""
    for table in SEALED:
        connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {CHECKSUM} VARCHAR(64) DEFAULT '' NOT NULL")
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
    seal_study(connection)
