"""Opening the database behind a study, and turning what can go wrong with it into `StoreError`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    QueuePool,
    create_engine,
    event,
    exc,
    inspect,
    make_url,
    select,
)

from petra.core.errors import StoreError
from petra.core.text import printable
from petra.store.checked import DAMAGE_HINT
from petra.store.examine import MAX_BYTES, examine, read_only, restrict, uri
from petra.store.layout import StudyPaths
from petra.store.schema import METADATA, READABLE, SCHEMA_VERSION, STUDY, shape

BUSY_TIMEOUT_S = 20.0
_HEADER = b"SQLite format 3\x00"


def connect_file(path: Path, *, write: bool) -> Engine:
    """An engine on a SQLite file, which is created when `write` and absent.

    Runs no check of the content.

    The journal is a write-ahead log: readers never wait for the writer. `synchronous=FULL` costs
    one fsync per transaction, milliseconds beside trials of seconds to hours, and keeps a reported
    trial through a power cut; a killed process would lose nothing with less, because what it wrote
    is in the kernel's hands when a commit returns.
    """

    def connect() -> sqlite3.Connection:
        if not write:
            connection = read_only(path, timeout_s=BUSY_TIMEOUT_S)
        else:
            connection = sqlite3.connect(
                f"{uri(path)}?mode=rwc",
                uri=True,
                timeout=BUSY_TIMEOUT_S,
                check_same_thread=False,
                # transactions are begun below: the driver's own leave out table definitions
                isolation_level=None,
            )
        restrict(connection, write=write)
        connection.execute("PRAGMA foreign_keys = ON")
        if write:
            # Where there is no shared memory, SQLite keeps its default.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool)
    event.listen(
        engine, "begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
    )
    return engine


def connect(directory: Path, url: str | None, *, write: bool) -> tuple[Engine, str]:
    """An engine on the database of a study, by default the file in its directory, and its name for
    messages.
    """
    if url is not None:
        return connect_url(url, write=write)
    path = StudyPaths(directory).database
    return connect_file(path, write=write), str(path)


def connect_url(url: str, *, write: bool) -> tuple[Engine, str]:
    """An engine on any database SQLAlchemy knows, and its name for messages (no password in it).

    Raises StoreError when the URL or its driver is unusable.
    """
    try:
        parsed = make_url(url)
        where = parsed.render_as_string(hide_password=True)
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            path = Path(parsed.database)
            if path.exists():
                check_file(path)
            return connect_file(path, write=write), where
        return create_engine(parsed), where
    except (exc.ArgumentError, exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise StoreError(
            f"database URL: {error}",
            hint="write dialect://user:password@host/name and install the dialect's driver",
        ) from error


def check_file(path: Path) -> None:
    """Refuse a SQLite file that is missing, somebody else's or cannot be read, before any query of
    petra's is run on it."""
    directory = path.parent
    if not path.is_file():
        raise StoreError(
            f"{directory}: there is no study here ({path.name} is missing)",
            hint="give the directory that a study was started in",
        )
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = file.read(len(_HEADER))
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be read: {error.strerror}", hint="check the permissions"
        ) from error
    if header and header != _HEADER:
        raise StoreError(
            f"{path} is not a study's database",
            hint="it is damaged or another file; restore a copy",
        )
    if size > MAX_BYTES:
        raise StoreError(
            f"{path} has {size} bytes, a study has at most {MAX_BYTES}", hint=_DAMAGED_HINT
        )
    with guarded(str(path)):
        examine(path, timeout_s=BUSY_TIMEOUT_S)


@contextmanager
def guarded(where: str) -> Iterator[None]:
    """Database errors become `StoreError`, with what each of them means to the person at the
    terminal.
    """
    try:
        yield
    except exc.IntegrityError:
        raise
    except exc.InvalidRequestError as error:  # a row that must be there is not, or is there twice
        raise StoreError(f"{where} is damaged: {error}", hint=_DAMAGED_HINT) from error
    except (exc.DBAPIError, sqlite3.Error, UnicodeError, OverflowError) as error:
        cause = error.orig if isinstance(error, exc.DBAPIError) else error
        text = printable(str(cause))
        if "locked" in text or "busy" in text:
            hint = (
                "another program holds the database; close it (a database browser, a copy job) and"
                " try again"
            )
        elif "readonly" in text or "read-only" in text or "unable to open" in text:
            hint = "check that the directory exists and that you may write to it"
        elif "full" in text or "disk I/O" in text:
            hint = "free space on the disk; trials already finished are safe"
        else:
            hint = _DAMAGED_HINT
        raise StoreError(f"{where}: {text}", hint=hint) from error


@contextmanager
def reading_from(engine: Engine, where: str, what: str = "") -> Iterator[Connection]:
    """One transaction that reads: a trial that is added meanwhile is seen with its measurements or
    not at all. Values that petra did not write are a StoreError that begins with `what`.
    """
    try:
        with guarded(where), engine.connect() as connection:
            yield connection
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"{where} is damaged: {what}{printable(error)}", hint=DAMAGE_HINT
        ) from error


_DAMAGED_HINT = "the database is damaged or not petra's; restore it from a copy"


def check_content(connection: Connection, where: str, *, whole: bool = True) -> int:
    """Refuse a database that is damaged, empty, somebody else's, or of another schema version; the
    version. Reads all of a SQLite file once, if it is to be looked at as a `whole`."""
    if whole and connection.dialect.name == "sqlite":
        verdict = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
        if verdict != "ok":
            raise StoreError(
                f"{where} is damaged: {printable(verdict)}",
                hint="restore it from a copy, or start a new study",
            )
    if not has_study(connection):
        raise StoreError(
            f"{where} holds no study",
            hint=(
                "give the directory that a study was started in; if its creation was interrupted,"
                " create it again"
            ),
        )
    row = connection.execute(select(STUDY.c.schema_version, STUDY.c.petra_version)).one()
    version, writer = row.schema_version, printable(row.petra_version)
    if version not in READABLE:
        raise StoreError(
            f"{where} has schema version {printable(version)}, written by petra {writer}; "
            f"this petra reads version {SCHEMA_VERSION}",
            hint=f"open it with petra {writer}, or start a new study in another directory",
        )
    found = inspect(connection)
    present = set(found.get_table_names())
    for table, names in shape(version).items():
        if table not in present or names != [c["name"] for c in found.get_columns(table)]:
            raise StoreError(
                f"{where} is damaged: the table {table} is not of schema version {version}",
                hint=_DAMAGED_HINT,
            )
    return int(version)


def has_study(connection: Connection) -> bool:
    """Whether the one row of `study` is there.

    Raises StoreError when the tables are somebody else's.
    """
    tables = set(inspect(connection).get_table_names())
    if not tables:
        return False
    columns = (
        {c["name"] for c in inspect(connection).get_columns(STUDY.name)}
        if STUDY.name in tables
        else set()
    )
    if not {"schema_version", "petra_version"} <= columns:
        raise StoreError(
            "the database holds something else (tables:"
            f" {printable(', '.join(sorted(tables)[:5]))})",
            hint="choose another directory or database for the study",
        )
    return connection.execute(select(STUDY.c.id)).first() is not None


def holds_study(path: Path) -> bool:
    """Whether a file is a study's database, in whatever condition."""
    if not path.is_file():
        return False
    engine = connect_file(path, write=False)
    try:
        check_file(path)
        with guarded(str(path)), engine.connect() as connection:
            return has_study(connection)
    except StoreError:
        return True  # damaged or not ours: whoever opens it is told how
    finally:
        engine.dispose()


def begin_study(connection: Connection, study: dict[str, Any], *, where: Path) -> None:
    """All tables and the study's row, in the caller's transaction: a killed creation leaves no half
    of them. Raises StoreError when there is a study.
    """
    if has_study(connection):
        raise StoreError(
            f"{where}: there is a study here already",
            hint="resume it, or choose another directory",
        )
    METADATA.create_all(connection)
    connection.execute(
        STUDY.insert().values(id=1, schema_version=SCHEMA_VERSION, elapsed_s=0.0, **study)
    )
