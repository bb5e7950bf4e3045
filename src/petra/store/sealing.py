"""Checksums in the database: checked when a study is opened, kept up with every write."""

from __future__ import annotations

from sqlalchemy import Connection, select

from petra.core.errors import StoreError
from petra.store.records import DAMAGE_HINT
from petra.store.schema import CHECKSUM, SCHEMA_VERSION, STUDY, members
from petra.store.seal import content, study_checksum


def seal(connection: Connection, content: int) -> None:
    """Make the study's checksum that of its row as it is and of `content`."""
    row = connection.execute(select(STUDY)).mappings().one()
    checksum = study_checksum(row, content)
    connection.execute(STUDY.update().values({CHECKSUM: checksum}))


def seal_study(connection: Connection) -> int:
    """Seal a study anew; its content. Cost: one pass over the checksums."""
    found = _content(connection, SCHEMA_VERSION)
    seal(connection, found)
    return found


def check_seal(connection: Connection, where: str, version: int) -> int:
    """The content of the study; raises StoreError unless its row, proposals, trials and notes are
    those written last. Cost: one pass over the checksums.

    What is in them is checked against their own checksums where they are read.
    """
    row = connection.execute(select(STUDY)).mappings().one()
    try:
        found = _content(connection, version)
        intact = row[CHECKSUM] == study_checksum(row, found)
    except (TypeError, ValueError):  # what is no checksum at all
        intact = False
    if not intact:
        raise StoreError(
            f"{where} is damaged: what is in it is not what was written",
            hint=DAMAGE_HINT,
        )
    return found


def _content(connection: Connection, version: int) -> int:
    queries = (select(key, key.table.c[CHECKSUM]) for key in members(version))
    return content((key, mark) for query in queries for key, mark in connection.execute(query))
