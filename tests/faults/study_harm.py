"""Harm to what a study says: damage, and values forged with checksums that fit."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
from pathlib import Path
from typing import Any

from hostile_values import STRANGE
from sqlalchemy import Connection, select

from petra.core.pipeline import Pipeline
from petra.store.database import connect_file
from petra.store.schema import CHECKSUM, MEASUREMENTS, NOTES, PROPOSALS, TRIALS
from petra.store.seal import note_checksum, proposal_checksum, trial_checksum
from petra.store.sealing import seal_study


def flip_bits(directory: Path, draw: random.Random) -> None:
    path = directory / "study.db"
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 1, 2, 8])):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def cut(directory: Path, draw: random.Random) -> None:
    path = directory / "study.db"
    data = path.read_bytes()
    at = draw.randrange(len(data))
    page = at // 4096 * 4096
    forms = [
        data[:at],
        data[:page] + bytes(4096) + data[page + 4096 :],
        data[:page] + data[page + 4096 :],
    ]
    path.write_bytes(
        draw.choice([*forms, data[:at] + data[at : at + 100] + data[at:], data + bytes(at)])
    )


def edit(directory: Path, draw: random.Random) -> None:
    """Put a value, or take a row away, as a database browser would."""
    with contextlib.closing(sqlite3.connect(directory / "study.db", isolation_level=None)) as raw:
        table, column, row = some_cell(raw, draw)
        if draw.random() < 0.2:
            raw.execute(f"DELETE FROM {table} WHERE rowid = ?", [row])
            return
        old = raw.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", [row]).fetchone()[0]
        new = (
            old * 1.0001 + 1e-9
            if isinstance(old, float) and draw.random() < 0.5
            else draw.choice(STRANGE)
        )
        with contextlib.suppress(sqlite3.Error):  # a constraint of the table's
            raw.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", [new, row])


def some_cell(raw: sqlite3.Connection, draw: random.Random) -> tuple[str, str, int]:
    table = draw.choice(
        ["study", "trials", "trials", "proposals", "measurements", "measurements", "notes"]
    )
    column = draw.choice(raw.execute(f"PRAGMA table_info({table})").fetchall())[1]
    row = draw.choice(raw.execute(f"SELECT rowid FROM {table}").fetchall())[0]
    return table, column, row


def forge(directory: Path, draw: random.Random) -> None:
    """Change a value or a piece of JSON, and make all checksums fit."""
    with contextlib.closing(sqlite3.connect(directory / "study.db", isolation_level=None)) as raw:
        for _ in range(draw.randint(1, 3)):
            table, column, row = some_cell(raw, draw)
            old = raw.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", [row]).fetchone()[0]
            new = draw.choice(STRANGE)
            with contextlib.suppress(ValueError, TypeError):
                new = json.dumps(spoilt(draw, json.loads(old))) if draw.random() < 0.7 else new
            with contextlib.suppress(sqlite3.Error):
                raw.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", [new, row])
    with (
        contextlib.suppress(Exception),
        connect_file(directory / "study.db", write=True).begin() as connection,
    ):
        reseal(connection)


def speak(directory: Path, text: str) -> None:
    """Say `text` wherever a study says anything freely, with checksums that fit."""
    pipeline = [{"stage": text, "params": {text: text, "ratio": 0.5}}]
    trace = [
        dict(PLAIN_TRACE, stage=text, touched=[text], skipped={text: text}, details={text: text})
    ]
    with contextlib.closing(sqlite3.connect(directory / "study.db", isolation_level=None)) as raw:
        host = json.loads(raw.execute("SELECT host FROM study").fetchone()[0])
        config = json.loads(raw.execute("SELECT config FROM study").fetchone()[0])
        config |= {"workload": {"name": text, "args": {text: text}}, "search": {"name": text}}
        host |= {"cpu": text, "os": text, text: text, "versions": {text: text, "petra": text}}
        raw.execute("UPDATE study SET host = ?, config = ?", [json.dumps(host), json.dumps(config)])
        raw.execute(
            "UPDATE trials SET trace = ?, parity = ?",
            [json.dumps(trace), json.dumps({text: 1})],
        )
        raw.execute("UPDATE proposals SET moves = ?", [json.dumps([text])])
        raw.execute("UPDATE proposals SET pipeline = ? WHERE number = 3", [json.dumps(pipeline)])
        raw.execute(
            "UPDATE trials SET failure_stage = ?, failure_kind = ?, failure_message = ?,"
            " failure_peak_memory_mb = 1, status = 'failed' WHERE number = 2",
            [text, text, text],
        )
        raw.execute("UPDATE measurements SET unit = ?, host = ?", [text, text])
        raw.execute("UPDATE notes SET value = ? WHERE name = 'stop_reason'", [json.dumps(text)])
    with connect_file(directory / "study.db", write=True).begin() as connection:
        reseal(connection)


PLAIN_TRACE = {
    "params_before": 1,
    "params_after": 1,
    "seconds": 0,
    "peak_memory_mb": 0,
    "cached": False,
}


def spoilt(draw: random.Random, data: Any) -> Any:
    """JSON with one value somewhere replaced."""
    if isinstance(data, dict | list) and data and draw.random() < 0.8:
        key = draw.choice(list(data) if isinstance(data, dict) else range(len(data)))
        data[key] = spoilt(draw, data[key])
        return data
    return draw.choice([v for v in STRANGE if not isinstance(v, bytes)])


def reseal(connection: Connection) -> None:
    for row in connection.execute(select(PROPOSALS)).mappings().all():
        change = PROPOSALS.update().where(PROPOSALS.c.number == row["number"])
        # The key is that of the pipeline, wherever there is one.
        with contextlib.suppress(Exception):
            row = dict(row) | {"key": Pipeline.from_list(json.loads(row["pipeline"])).key}
        connection.execute(change.values(key=row["key"], **{CHECKSUM: proposal_checksum(row)}))
    for row in connection.execute(select(TRIALS)).mappings().all():
        own = MEASUREMENTS.c.number == row["number"]
        measured = connection.execute(select(MEASUREMENTS).where(own)).mappings().all()
        change = TRIALS.update().where(TRIALS.c.number == row["number"])
        connection.execute(change.values({CHECKSUM: trial_checksum(row, measured)}))
    for row in connection.execute(select(NOTES)).mappings().all():
        change = NOTES.update().where(NOTES.c.name == row["name"])
        connection.execute(change.values({CHECKSUM: note_checksum(row["name"], row["value"])}))
    seal_study(connection)
