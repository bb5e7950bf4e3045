"""What an earlier petra wrote, read as it is and brought to this version of the schema."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from petra.store.reading import read_trials
from petra.store.records import note_value
from petra.store.schema import CHECKSUM, METADATA, NOTES, SCHEMA_VERSION, STUDY, columns, tables
from petra.store.sealing import Content, seal_study
from petra.store.writing import Writing

_OLD = "earlier_"  # before the names of tables that are being replaced


def upgrade(connection: Connection, version: int) -> Content:
    """Bring a study of an earlier schema `version` to this one, in the caller's transaction; its
    content (`petra.store.seal.content`).

    Every trial becomes a proposal and what came of it; what the proposals were made from was not
    recorded, so they were told nothing. Raises StoreError, for the caller to roll back, when a row
    makes no sense.
    """
    trials = read_trials(connection, version)
    notes = connection.execute(select(*columns(NOTES, version))).mappings().all()
    read = [(row["name"], note_value(row)) for row in notes]
    study = dict(connection.execute(select(*columns(STUDY, version))).mappings().one())
    names = [table.name for table in tables(version)]
    for name in names:
        connection.exec_driver_sql(f"ALTER TABLE {name} RENAME TO {_OLD}{name}")
    METADATA.create_all(connection)
    study |= {"schema_version": SCHEMA_VERSION, CHECKSUM: ""}
    connection.execute(insert(STUDY), study)
    writing = Writing(connection, Content())
    for trial in trials:
        writing.trial(trial)
    for name, value in read:
        writing.note(name, value)
    writing.finish()
    for name in reversed(names):  # measurements before the trials that they belong to
        connection.exec_driver_sql(f"DROP TABLE {_OLD}{name}")
    return seal_study(connection)
