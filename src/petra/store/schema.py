"""The tables of a study. Change anything here and `SCHEMA_VERSION` must change with it.

Version 1 had no checksums. Up to version 2 there were no proposals: a trial held its own pipeline
and, in one word, the moves that had made it. Both are read as they are, and become this version
when they are opened for writing.
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
    UniqueConstraint,
)

SCHEMA_VERSION = 3
READABLE = (1, 2, SCHEMA_VERSION)
CHECKSUM = "checksum"  # of a row and what belongs to it: `petra.store.seal` says of what

METADATA = MetaData()
_EARLIER = MetaData()


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

# What was to be tried, written before it runs. `moves` and `told` are JSON lists.
PROPOSALS = Table(
    "proposals",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("key", String(64), nullable=False),
    Column("pipeline", Text, nullable=False),
    Column("fidelity", String(256), nullable=False),
    Column("moves", Text, nullable=False),
    Column("parent", Integer),
    Column("told", Text, nullable=False),
    _checksum(),
    UniqueConstraint("key", "fidelity"),
)

# What came of it.
TRIALS = Table(
    "trials",
    METADATA,
    Column("number", ForeignKey("proposals.number"), primary_key=True, autoincrement=False),
    Column("status", String(16), nullable=False),
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

# Proposal and trial in one, as they were up to version 2.
EARLIER_TRIALS = Table(
    "trials",
    _EARLIER,
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


def tables(version: int) -> tuple[Table, ...]:
    """The tables of a version of the schema."""
    if version < 3:
        return STUDY, EARLIER_TRIALS, MEASUREMENTS, NOTES
    return STUDY, PROPOSALS, TRIALS, MEASUREMENTS, NOTES


def members(version: int) -> tuple[Column[Any], ...]:
    """The keys of the tables whose rows the study's own checksum covers, from version 2 on."""
    trials = (EARLIER_TRIALS,) if version < 3 else (PROPOSALS, TRIALS)
    return *(table.c.number for table in trials), NOTES.c.name


def columns(table: Table, version: int) -> list[Column[Any]]:
    """The columns of a table in a version of the schema that has it."""
    return [c for c in table.columns if version > 1 or c.name != CHECKSUM]


def shape(version: int) -> dict[str, list[str]]:
    """Names of tables and of their columns, in order."""
    return {t.name: [c.name for c in columns(t, version)] for t in tables(version)}


def petra_version() -> str:
    """The installed version, '0' when petra runs from a source tree that was never installed."""
    try:
        return metadata.version("petra")
    except metadata.PackageNotFoundError:
        return "0"
