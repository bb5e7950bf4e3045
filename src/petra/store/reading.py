"""What is stored, of any version of the schema that is readable."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, Connection, RowMapping, Table, select

from petra.core.errors import StoreError
from petra.core.trial import Proposal, Trial
from petra.store import checked
from petra.store.checked import DAMAGE_HINT
from petra.store.proposals import earlier_proposal, read_proposal
from petra.store.records import DEFECTS, damaged, note_value, read_trial
from petra.store.schema import (
    EARLIER_TRIALS,
    MEASUREMENTS,
    NOTES,
    PROPOSALS,
    STUDY,
    TRIALS,
    columns,
)

Measured = tuple[RowMapping, list[RowMapping]]


def read_proposals(
    connection: Connection,
    version: int,
    numbers: Collection[int] | None = None,
    *,
    open_only: bool = False,
) -> list[Proposal]:
    """All proposals, or those of these numbers, by number, or only those that have no trial; of an
    earlier schema only those that have one. Raises StoreError for a row that is damaged.
    """
    if version < 3:
        rows = [] if open_only else _rows(connection, EARLIER_TRIALS, version, numbers)
        return [_earlier(row) for row in rows]
    if open_only:
        ended = select(TRIALS.c.number)
        found = connection.execute(
            select(PROPOSALS.c.number).where(PROPOSALS.c.number.not_in(ended))
        )
        numbers = found.scalars().all()
    return [read_proposal(row) for row in _rows(connection, PROPOSALS, version, numbers)]


def read_trials(
    connection: Connection, version: int, numbers: Collection[int] | None = None
) -> list[Trial]:
    """All trials, or those of these numbers, by number. Raises StoreError for a row that is
    damaged.
    """
    proposals = {p.number: p for p in read_proposals(connection, version, numbers)}
    table = TRIALS if version >= 3 else EARLIER_TRIALS
    trials = []
    for row, measured in rows_of_trials(connection, version, numbers):
        if row["number"] not in proposals:
            raise StoreError(f"trial {row['number']}: it was never proposed", hint=DAMAGE_HINT)
        trials.append(read_trial(proposals[row["number"]], row, measured, table=table))
    return trials


def rows_of_trials(
    connection: Connection, version: int, numbers: Collection[int] | None = None
) -> list[Measured]:
    """Rows of all trials, or of those of these numbers, by number, each with those of its
    measurements in their order.

    `version` is that of the schema they were written in.
    """
    table = TRIALS if version >= 3 else EARLIER_TRIALS
    measurements = select(MEASUREMENTS).order_by(MEASUREMENTS.c.position)
    if numbers is not None:
        measurements = measurements.where(MEASUREMENTS.c.number.in_(numbers))
    of: dict[Any, list[RowMapping]] = defaultdict(list)
    rows = _rows(connection, table, version, numbers)
    for m in connection.execute(measurements).mappings():
        of[m["number"]].append(m)
    return [(row, of[row["number"]]) for row in rows]


def _rows(
    connection: Connection, table: Table, version: int, numbers: Collection[int] | None
) -> list[RowMapping]:
    query = select(*columns(table, version)).order_by(table.c.number)
    if numbers is not None:
        query = query.where(table.c.number.in_(numbers))
    return list(connection.execute(query).mappings())


def _earlier(row: RowMapping) -> Proposal:
    try:
        return earlier_proposal(row)
    except DEFECTS as error:
        raise damaged("trial", row, error) from error


def read_setting(connection: Connection, column: Column[Any]) -> dict[str, Any]:
    """A column of `study` that holds JSON. ValueError for what is not as it was written."""
    text = connection.execute(select(column)).scalar()
    return checked.mapping(checked.from_json(text, "a setting"), "a setting")


def read_elapsed(connection: Connection) -> float:
    """Seconds of search so far. ValueError as above."""
    value = connection.execute(select(STUDY.c.elapsed_s)).scalar_one()
    return checked.number(value, "elapsed_s", negative=False)


def read_created(connection: Connection) -> datetime:
    """When the study was created, in UTC. ValueError as above."""
    text = checked.text(connection.execute(select(STUDY.c.created)).scalar_one(), "created")
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def read_note(connection: Connection, version: int, name: str) -> Any:
    """The value of a note, None when there is none. ValueError as above."""
    query = select(*columns(NOTES, version)).where(NOTES.c.name == name)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else note_value(row)
