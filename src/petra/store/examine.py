"""A SQLite file from anywhere, looked at before any query is run against it.

A database can bring SQL of its own: views and triggers that stand for tables, columns that are
computed, constraints that are evaluated. petra's files have nothing of the kind but two constraints
that are known, so every other file is refused by what it declares.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from petra.core.errors import StoreError
from petra.core.text import printable
from petra.store.schema import READABLE, STUDY, shape

MAX_BYTES = 1 << 31  # of a database file; studies have a few megabytes
_MAX_CELL = 1 << 25  # bytes of one value
_ENTRIES = 64
_HINT = "it was changed by something other than petra; restore a copy, or start a new study"
# Constraints of the tables of petra.store.schema, as SQLAlchemy spells them.
_KNOWN = tuple(shape(version) for version in READABLE)
_KNOWN_CHECKS = re.compile(r"CHECK\s*\((id = 1|split IN \('val', 'test'\))\)")


def restrict(connection: sqlite3.Connection, *, write: bool) -> None:
    """Settings for a file that may be anybody's: bounded values, no function called by the schema,
    checked cells, and no change unless `write`."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_CELL)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    if not write:
        connection.execute("PRAGMA query_only = ON")


def read_only(path: Path, *, timeout_s: float) -> sqlite3.Connection:
    """A connection that changes nothing, not even the log's side files where they cannot be
    made.
    """
    return sqlite3.connect(
        f"{uri(path)}?{read_mode(path, timeout_s)}",
        uri=True,
        timeout=timeout_s,
        check_same_thread=False,
        isolation_level=None,
    )


def read_mode(path: Path, timeout_s: float) -> str:
    """How to open for reading: where not even side files can be made, the file is taken as it
    lies.
    """
    try:
        with closing(sqlite3.connect(f"{uri(path)}?mode=ro", uri=True, timeout=timeout_s)) as probe:
            probe.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        if path.exists() and not path.with_name(path.name + "-wal").exists():
            return "immutable=1"
    return "mode=ro"


def uri(path: Path) -> str:
    return f"file:{quote(str(path.absolute()))}"


def examine(path: Path, *, timeout_s: float) -> None:
    """Refuse a database that declares anything but a study's tables; an empty one is allowed.

    Raises StoreError, and sqlite3.Error when the file is damaged.
    """
    with closing(read_only(path, timeout_s=timeout_s)) as connection:
        restrict(connection, write=False)
        found = connection.execute(
            f"SELECT type, name, sql FROM sqlite_master LIMIT {_ENTRIES}"
        ).fetchall()
        tables = sorted(str(name) for kind, name, _ in found if kind == "table")
        if tables and (STUDY.name not in tables or len(found) >= _ENTRIES):
            shown = printable(", ".join(tables[:5]))[:200]
            raise StoreError(
                f"{path}: the database holds something else (tables: {shown})",
                hint="choose another directory or database for the study",
            )
        for odd in _oddities(connection, found):
            raise StoreError(f"{path} is not as petra makes it: {printable(odd)[:200]}", hint=_HINT)


def _oddities(connection: sqlite3.Connection, found: list[tuple[str, str, str]]) -> Iterator[str]:
    for kind, name, sql in found:
        automatic = kind == "index" and str(name).startswith("sqlite_autoindex_") and sql is None
        if kind != "table" and not automatic:
            yield f"it has the {kind} {name}"
        if kind == "table":
            yield from _table_oddities(connection, str(name), str(sql))
    names = {name for kind, name, _ in found if kind == "table"}
    if names and names not in [set(known) for known in _KNOWN]:
        missing = min((set(known) - names for known in _KNOWN), key=len)
        yield f"the table {min(missing)} is missing" if missing else "it has a table too many"


def _table_oddities(connection: sqlite3.Connection, name: str, sql: str) -> Iterator[str]:
    if not any(name in known for known in _KNOWN):
        yield f"it has the table {name}"
        return
    if sql.upper().lstrip().startswith("CREATE VIRTUAL"):
        yield f"the table {name} is virtual"
        return
    if "CHECK" in _KNOWN_CHECKS.sub("", sql).upper().replace("CHECKSUM", ""):
        yield f"the table {name} has constraints of its own"
    shape = connection.execute(f'PRAGMA table_xinfo("{name}")').fetchall()
    # As (name, hidden): hidden columns are computed.
    declared = [(column, hidden) for _, column, _, _, _, _, hidden in shape]
    if not any(declared == [(c, 0) for c in known.get(name, ())] for known in _KNOWN):
        yield f"the columns of {name} are others"
