"""Harm to what a study is made of: schemas of its database, and what lies in its directory."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"
SCHEMAS: dict[str, Callable[[Path, str], None]] = {}
LAYOUTS: dict[str, Callable[[Path, str], None]] = {}


def outside(path: Path) -> Path:
    """The directory that the study lies in."""
    return next(p for p in path.parents if p.name == "study").parent


def _sql(name: str, script: str) -> None:
    def harm(directory: Path, how: str) -> None:
        with (
            contextlib.closing(sqlite3.connect(directory / "study.db")) as raw,
            contextlib.suppress(sqlite3.Error),
        ):
            raw.executescript(script)

    SCHEMAS[name] = harm


_sql(
    "a view for a table",
    "ALTER TABLE notes RENAME TO kept; CREATE VIEW notes AS SELECT * FROM kept;",
)
_sql(
    "an endless view",
    "DROP TABLE notes; CREATE VIEW notes AS SELECT x AS name, x AS value, x AS checksum FROM"
    f" ({ENDLESS});",
)
_sql("a trigger", "CREATE TRIGGER t AFTER UPDATE ON study BEGIN DELETE FROM trials; END;")
_sql(
    "a computed column",
    "ALTER TABLE trials ADD COLUMN z GENERATED ALWAYS AS (hex(zeroblob(1000000000)));",
)
_sql("an index with an expression", "CREATE INDEX i ON trials (length(zeroblob(1000000)));")
_sql("another table", "CREATE TABLE more (x);")
_sql("a virtual table", "CREATE VIRTUAL TABLE f USING fts5(x);")
_sql("no table of notes", "DROP TABLE notes;")
_sql("no measurements", "DELETE FROM measurements;")
_sql("no study", "DELETE FROM study;")
_sql(
    "no trial 0", "DELETE FROM measurements WHERE number = 0; DELETE FROM trials WHERE number = 0;"
)
_sql("a column less", "ALTER TABLE trials DROP COLUMN seconds;")
_sql("a column renamed", "ALTER TABLE notes RENAME COLUMN checksum TO chekcsum;")
_sql("an earlier version", "UPDATE study SET schema_version = 1;")
_sql("a later version", "UPDATE study SET schema_version = 99;")
_sql("a huge value", "UPDATE study SET config = hex(zeroblob(30000000));")
_sql("another encoding", "PRAGMA encoding = 'UTF-16'; VACUUM;")
_sql(
    "somebody else's",
    "DROP TABLE measurements; DROP TABLE trials; DROP TABLE study; DROP TABLE notes; CREATE TABLE"
    " recipes (x);",
)
_sql(
    "nothing in it",
    "DROP TABLE measurements; DROP TABLE trials; DROP TABLE study; DROP TABLE notes;",
)


def _layout(name: str, path: str, make: Callable[[Path], None]) -> None:
    def harm(directory: Path, how: str) -> None:
        for place in sorted(directory.glob(path)):
            shutil.rmtree(place) if place.is_dir() else place.unlink()
            make(place)
        if "*" not in path and not os.path.lexists(directory / path):
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            make(directory / path)

    LAYOUTS[f"{path}: {name}"] = harm


for _path in (
    "study.db",
    "study.lock",
    "report.html",
    "study.db-wal",
    "artifacts/*/model.onnx",
    "artifacts/00000/model.onnx.data",
):
    _layout("a link out", _path, lambda p: p.symlink_to(outside(p) / "secret"))
    _layout("a pipe", _path, os.mkfifo)
    _layout("a kernel's log", _path, lambda p: p.symlink_to("/proc/kmsg"))
    _layout("a directory", _path, Path.mkdir)
for _path in ("artifacts", "cache", "data", "export", "export/knee", "logs", "artifacts/*"):
    _layout("a link out", _path, lambda p: p.symlink_to(outside(p)))
    _layout("a file", _path, lambda p: p.write_text("x") and None)
    _layout("missing", _path, lambda p: None)
