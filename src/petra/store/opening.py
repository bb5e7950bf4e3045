"""What is looked at when a study is opened, and what is done to an earlier petra's for writing."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Connection

from petra.store.database import check_content
from petra.store.points import Points
from petra.store.schema import SCHEMA_VERSION
from petra.store.sealing import Content, check_seal, kept_points, points_kept
from petra.store.upgrade import upgrade
from petra.store.writing import rebuild_points


@dataclass(frozen=True)
class Found:
    """What a database holds. `content` is empty in schema 1, which has no checksums, and where only
    `points` were asked for, and found.
    """

    version: int = SCHEMA_VERSION
    content: Content = field(default_factory=Content)
    points: Points | None = None


def look(connection: Connection, where: str, *, whole: bool) -> Found:
    """Check a study as `Store.open` says. Raises StoreError."""
    version = check_content(connection, where, whole=whole)
    if not whole:
        points = kept_points(connection) if version == SCHEMA_VERSION else None
        return Found(version, points=points) if points else look(connection, where, whole=True)
    return Found(version, check_seal(connection, where, version) if version > 1 else Content())


def brought_up(connection: Connection, found: Found) -> Found:
    """What is stored as this petra stores it, in the caller's transaction: of this schema, and with
    points.
    """
    if found.version < SCHEMA_VERSION:
        return Found(content=upgrade(connection, found.version))
    if points_kept(connection, found.content):
        return found
    return Found(content=rebuild_points(connection, found.content))
