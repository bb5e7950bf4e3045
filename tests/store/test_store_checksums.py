"""Whatever is changed in a database by something other than petra is noticed."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from stored import CONFIG, HOST, edited, make_trial, read_all, refused

from petra.core.errors import StoreError
from petra.core.trial import (
    Failure,
    Proposal,
    TrialStatus,
)
from petra.store import layout, schema
from petra.store.store import Store

EDITS = (
    "UPDATE measurements SET mean = mean * 1.001",
    "UPDATE measurements SET n = n + 1",
    "UPDATE measurements SET host = 'another'",
    "UPDATE measurements SET split = 'test'",
    "DELETE FROM measurements WHERE metric = 'size_bytes'",
    "UPDATE trials SET seconds = 2",
    "UPDATE trials SET artifact = 'artifacts/00002/model.onnx'",
    "UPDATE trials SET status = 'infeasible' WHERE number = 1",
    "DELETE FROM trials WHERE number = 2",
    "DELETE FROM proposals WHERE number = 2",
    "DELETE FROM proposals WHERE number = 3",
    "UPDATE proposals SET told = '[]' WHERE number = 3",
    "UPDATE proposals SET parent = 1 WHERE number = 1",
    "UPDATE notes SET value = '2'",
    "DELETE FROM notes",
    "UPDATE notes SET name = 'other' WHERE name = 'stop'",
    "UPDATE study SET elapsed_s = 5",
    "UPDATE study SET config = '{}'",
    "UPDATE study SET host = '{}'",
    "UPDATE study SET checksum = ''",
)


@pytest.mark.parametrize("statement", EDITS)
def test_an_edited_value_is_noticed(store: Store, statement: str) -> None:
    for n in range(2):
        store.add(make_trial(n))
    store.add(
        make_trial(2, metrics={}, status=TrialStatus.FAILED, failure=Failure("tune", "E", "m"))
    )
    store.propose(Proposal(3, make_trial(3).pipeline, told=(1, 2)))
    store.set_note("stop", 1)
    store.close()
    edited(store, statement)
    with pytest.raises(StoreError, match="damaged") as caught:
        read_all(store.directory)
    assert caught.value.hint


HOSTILE_VALUES = (
    "NULL", "-1", "x'00ff'", "'x'", "1e999", "-1e300", "'[' ", "'null'", "'NaN'",
    "'../../etc/passwd'", "'/etc/passwd'",
)  # fmt: skip


@pytest.mark.parametrize("table", ["study", "proposals", "trials", "measurements", "notes"])
def test_values_of_the_wrong_kind_are_refused_where_they_are_read(
    tmp_path: Path, table: str
) -> None:
    """Also with checksums that fit, as a forger would make them."""
    from petra.store.database import connect_file
    from petra.store.sealing import seal_study

    with Store.create(tmp_path / "study", CONFIG, HOST) as made:
        made.add(make_trial(0, artifact="artifacts/00000/model.onnx"))
        made.set_note("stop", {"a": 1})
    path = made.directory / layout.DATABASE_FILE
    whole = path.read_bytes()
    names = [c.name for c in schema.METADATA.tables[table].columns if c.name != schema.CHECKSUM]
    for column, value in ((c, v) for c in names for v in HOSTILE_VALUES):
        path.write_bytes(whole)
        try:
            edited(made, f"UPDATE {table} SET {column} = {value}")
            engine = connect_file(path, write=True)
            with engine.begin() as connection:
                seal_study(connection)
            engine.dispose()
        except Exception:  # noqa: BLE001 - the table does not take it, or it cannot be sealed
            continue
        with contextlib.suppress(StoreError):
            read_all(made.directory)


def test_a_version_cannot_be_lowered_to_be_rid_of_the_checksums(store: Store) -> None:
    store.close()
    edited(store, "UPDATE study SET schema_version = 1")
    assert "not of schema version 1" in refused(store.directory).message


def test_a_foreign_file_is_not_changed_by_a_look_at_it(tmp_path: Path) -> None:
    path = tmp_path / layout.DATABASE_FILE
    raw = sqlite3.connect(path)
    raw.execute("CREATE TABLE recipes (name TEXT)")
    raw.close()
    before = path.read_bytes()
    for attempt in (
        lambda: Store.open(tmp_path, write=True),
        lambda: Store.create(tmp_path, {}, {}),
    ):
        with pytest.raises(StoreError, match="something else"):
            attempt()
    assert path.read_bytes() == before


def test_what_is_changed_behind_a_writer_is_noticed(store: Store) -> None:
    store.add(make_trial(0))
    store.add(make_trial(1))
    edited(store, "DELETE FROM measurements WHERE number = 1")
    edited(store, "DELETE FROM trials WHERE number = 1")
    store.set_note("stop", "budget")  # keeps the checksum up; it does not make one anew
    store.close()
    with pytest.raises(StoreError, match="is not what was written"):
        Store.open(store.directory, write=False)
