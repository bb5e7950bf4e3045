"""Directories and databases that are no study, damaged or elsewhere: a refusal instead of a
traceback.
"""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest
from stored import CONFIG, HOST, make_trial, refused

from petra.core.errors import StoreError
from petra.core.trial import (
    StageTrace,
)
from petra.store import layout, schema
from petra.store.store import Store


def test_directories_that_are_no_study(tmp_path: Path) -> None:
    assert "no study here" in refused(tmp_path / "absent").message
    assert "no study here" in refused(tmp_path, write=True).message
    assert not (tmp_path / "absent").exists()
    (tmp_path / "file").write_text("not a directory")
    assert "no study here" in refused(tmp_path / "file").message
    with pytest.raises(StoreError, match="cannot be made"):
        Store.create(tmp_path / "file" / "study", {}, {})
    with pytest.raises(StoreError, match="cannot write here"):
        Store.create(Path("/proc/1"), {}, {})
    with pytest.raises(StoreError, match="configuration cannot be stored"):
        Store.create(tmp_path / "new", {"when": object()}, {})


def test_a_study_is_not_created_twice(store: Store) -> None:
    store.add(make_trial(0))
    store.close()
    with pytest.raises(StoreError, match="there is a study here already"):
        Store.create(store.directory, {}, {})
    with Store.open(store.directory, write=False) as again:
        assert again.trials() == [make_trial(0)]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing stops root from writing")
def test_a_directory_without_write_permission(store: Store) -> None:
    store.add(make_trial(0))
    store.close()
    (store.directory / "study.lock").chmod(0o400)
    store.directory.chmod(0o500)
    try:
        refused(store.directory, write=True)
        with Store.open(store.directory, write=False) as reader:
            assert reader.trials() == [make_trial(0)]
    finally:
        store.directory.chmod(0o700)


def test_another_schema_version(store: Store) -> None:
    store.close()
    path = store.directory / layout.DATABASE_FILE
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE study SET schema_version = 99, petra_version = '7.1'")
    raw.close()
    error = refused(store.directory)
    assert "schema version 99, written by petra 7.1" in error.message
    assert f"reads version {schema.SCHEMA_VERSION}" in error.message
    assert "petra 7.1" in error.hint
    refused(store.directory, write=True)


def test_somebody_elses_database(tmp_path: Path) -> None:
    raw = sqlite3.connect(tmp_path / layout.DATABASE_FILE)
    raw.execute("CREATE TABLE recipes (name TEXT)")
    raw.close()
    with pytest.raises(StoreError, match=r"something else.*recipes"):
        Store.open(tmp_path, write=False)
    with pytest.raises(StoreError, match=r"something else.*recipes"):
        Store.create(tmp_path, {}, {})


def test_an_interrupted_creation_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / layout.DATABASE_FILE).touch()
    assert "holds no study" in refused(tmp_path).message
    Store.create(tmp_path, CONFIG, {}).close()
    with Store.open(tmp_path, write=False) as store:
        assert store.config == CONFIG


@pytest.mark.parametrize(
    "damage",
    ["garbage", "garbage inside", "truncated", "short", "half a page", "text", "last page"],
)
def test_damaged_databases(store: Store, damage: str) -> None:
    for n in range(40):
        store.add(make_trial(n, trace=(StageTrace("tune", touched=("layer",) * 100),)))
    store.close()
    path = store.directory / layout.DATABASE_FILE
    data = path.read_bytes()
    path.write_bytes(
        {
            "garbage": os.urandom(len(data)),
            "garbage inside": data[:4096] + b"\xa5" * (len(data) - 4096),
            "truncated": data[: len(data) // 2],
            "short": data[:10],
            "half a page": data[:2048],
            "text": b"hello, world\n" * 100,
            "last page": data[:-4096] + bytes(4096),
        }[damage]
    )
    for write in (False, True):
        refused(store.directory, write=write)


def test_a_row_that_petra_did_not_write(store: Store) -> None:
    store.add(make_trial(1))
    path = store.directory / layout.DATABASE_FILE
    for table, column, value in [
        ("trials", "status", "finished"),
        ("proposals", "pipeline", "[{]"),
        ("proposals", "pipeline", json.dumps([{"stage": "other"}])),
        ("proposals", "moves", '["given", 1]'),
        ("proposals", "fidelity", '{"epochs":2,"data":1,"zero_shot":false}'),
        ("proposals", "told", "[-1]"),
        ("trials", "trace", "[{}]"),
        ("trials", "trace", "null"),
    ]:
        raw = sqlite3.connect(path)
        before = raw.execute(f"SELECT {column} FROM {table}").fetchone()[0]
        with raw:
            raw.execute(f"UPDATE {table} SET {column} = ?", [value])
        what = table.removesuffix("s")
        with pytest.raises(StoreError, match=f"{what} 1: the stored row is damaged"):
            store.trials()
        with raw:
            raw.execute(f"UPDATE {table} SET {column} = ?", [before])
        raw.close()
    assert store.trials() == [make_trial(1)]


# -- other databases -------------------------------------------------------------------------------


def test_a_database_elsewhere(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'else where?.db'}".replace("?", "%3F")
    with Store.create(tmp_path / "study", CONFIG, HOST, url=url) as store:
        store.add(make_trial(0))
        with pytest.raises(StoreError, match="being written"):
            Store.open(tmp_path / "study", write=True, url=url)
    assert [p.name for p in (tmp_path / "study").iterdir()] == ["study.lock"]
    with Store.open(tmp_path / "study", write=False, url=url) as store:
        assert store.trials() == [make_trial(0)]


@pytest.mark.parametrize(
    "url", ["nonsense", "nosuchdb://host/name", "oracle+oracledb://u:secret@host/name"]
)
def test_unusable_urls(tmp_path: Path, url: str) -> None:
    with pytest.raises(StoreError) as caught:
        Store.create(tmp_path, {}, {}, url=url)
    assert "secret" not in str(caught.value)
    Store.create(tmp_path, {}, {}).close()  # the failed attempt has let go of the lock
