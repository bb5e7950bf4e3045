"""The tables of a study. Change anything here and `SCHEMA_VERSION` must change with it.

Version 1 had no checksums. It is read as it is, and becomes version 2 when it is opened for
writing.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

SCHEMA_VERSION = 2
READABLE = (1, SCHEMA_VERSION)
CHECKSUM = "checksum"  # of a row and what belongs to it: `petra.store.seal` says of what

METADATA = MetaData()


def _checksum() -> Column[str]:
    return Column(CHECKSUM, String(64), nullable=False, server_default="")


# One row: what the study is. JSON lives in text columns, spelt by this package, so that every value
# reads back as exactly the one that was written, whatever the database makes of its own JSON type.
STUDY = Table(
    "study",
    METADATA,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("schema_version", Integer, nullable=False),
    Column("petra_version", String(64), nullable=False),
    Column("created", String(64), nullable=False),  # ISO 8601, UTC
    Column("config", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("elapsed_s", Double, nullable=False),  # of search, summed over sessions
    _checksum(),
)

TRIALS = Table(
    "trials",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("key", String(64), nullable=False, unique=True),
    Column("status", String(16), nullable=False),
    Column("pipeline", Text, nullable=False),
    Column("move", Text, nullable=False),
    Column("parent", Integer),
    Column("failure_stage", Text),
    Column("failure_kind", Text),
    Column("failure_message", Text),
    Column("failure_peak_memory_mb", Double),
    Column("trace", Text, nullable=False),
    Column("artifact", Text, nullable=False),
    Column("parity", Text, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("finished_at", Double, nullable=False),
    _checksum(),
)

# Position keeps the order in which a trial's metrics were given.
MEASUREMENTS = Table(
    "measurements",
    METADATA,
    Column("number", ForeignKey("trials.number"), primary_key=True),
    Column("split", String(4), CheckConstraint("split IN ('val', 'test')"), primary_key=True),
    Column("metric", String(64), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("mean", Double, nullable=False),
    Column("stderr", Double, nullable=False),
    Column("n", Integer, nullable=False),
    Column("unit", Text, nullable=False),
    Column("host", Text, nullable=False),
)

NOTES = Table(
    "notes",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
    _checksum(),
)

SEALED = (STUDY, TRIALS, NOTES)  # what has a checksum; measurements are part of their trial's


def columns(table: Table, version: int) -> list[Column[Any]]:
    """The columns of a table in a version of the schema."""
    return [c for c in table.columns if version >= SCHEMA_VERSION or c.name != CHECKSUM]


def petra_version() -> str:
    """The installed version, '0' when petra runs from a source tree that was never installed."""
    try:
        return metadata.version("petra")
    except metadata.PackageNotFoundError:
        return "0"
