"""Damaged and hostile files of every kind that petra reads back: studies, bundles, cache entries.

What is damaged is read as it was or refused with one message; what is forged (its checksums made to
fit) may say what it likes, but acts on nothing: no traceback, no hang, no escape sequence on the
terminal, nothing read or written outside of the study. Archives of models are attacked by a
campaign of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from attack import Attack
from fuzz import ESCAPE, Hung, at_most
from sqlalchemy import Connection, select
from torch import nn
from typer.testing import CliRunner

from petra.cli.main import app
from petra.core.errors import ArtifactError
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import StageTrace
from petra.execute.cache import PrefixCache
from petra.report.recorded import METRICS_FILE, check_recorded
from petra.report.study_front import StudyFront
from petra.store.database import connect_file
from petra.store.schema import CHECKSUM, MEASUREMENTS, NOTES, PROPOSALS, TRIALS
from petra.store.seal import note_checksum, proposal_checksum, trial_checksum
from petra.store.sealing import seal_study
from petra.testing.studies import toy_study

SECRET = "not for anybody's eyes"
SLOWEST_S = 30.0
MARKUP = "[bold red]x[/bold red]</script><script>alert(1)</script>`|[a](javascript:b)"
STRANGE: tuple[Any, ...] = (
    *(
        None,
        -1,
        0,
        1,
        10**18,
        -(10**18),
        0.1,
        -0.5,
        1e308,
        -1e308,
        1e-308,
        float("inf"),
        b"\x00\xff",
        "",
        "x",
        "1",
        "NaN",
    ),
    *(
        "null",
        "[]",
        "{}",
        "[{}]",
        "3",
        "NaN",
        "Infinity",
        "1e999",
        "[" * 5000,
        '{"a":' * 200,
        '{"a": 1, "a": 2}',
        "9" * 5000,
    ),
    *(
        ESCAPE,
        MARKUP,
        "\u202egnp.exe",
        "a\nb\rc",
        "\x9b31m",
        "x" * 100_000,
        "../../secret",
        "/etc/passwd",
        "/proc/kmsg",
    ),
    *(
        "complete",
        "failed",
        "unheard of",
        "artifacts/../../secret",
        json.dumps([{"stage": ESCAPE}]),
        json.dumps({MARKUP: 1}),
    ),
)


def campaign(scratch: Path, *, seed: int, seconds: float) -> Iterator[Attack]:
    """Every kind in turn, until the time is over; what exists only in a few forms comes first."""
    began, draw = time.monotonic(), random.Random(seed)
    ground = Ground(scratch)
    fixed: list[tuple[str, Callable[[Path, str], None], str]] = [
        *(("study, schema", harm, name) for name, harm in SCHEMAS.items()),
        *(("study, layout", harm, name) for name, harm in LAYOUTS.items()),
        *(("study, forged texts", speak, text) for text in SAYINGS),
    ]
    draw.shuffle(fixed)
    for kind, harm, how in fixed:
        if time.monotonic() - began > 0.5 * seconds:
            break
        yield ground.study(kind, harm, how, forged=True)
    kinds: list[Callable[[random.Random], Attack]] = [
        lambda d: ground.study("study, bits", flip_bits, d),
        lambda d: ground.study("study, length", cut, d),
        lambda d: ground.study("study, values", edit, d),
        lambda d: ground.study("study, forged", forge, d, forged=True),
        ground.bundle,
        ground.cache_entry,
    ]
    n = 0
    while time.monotonic() - began < seconds:
        yield kinds[n % len(kinds)](random.Random(draw.random()))
        n += 1


class Ground:
    """A sound study, bundle and cache to spoil copies of, and a secret beside them."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.sound = toy_study(scratch / "sound", trials=10, constraints=("size <= baseline",))
        with contextlib.closing(sqlite3.connect(self.sound / "study.db")) as raw:
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (scratch / "secret").write_text(SECRET)
        self.looks = 0
        self.figures = self.shown(self.sound)[1]
        exported = StudyFront.load(self.sound).pick("knee").export(f"{scratch / 'bundle'}/")
        self.recorded = check_recorded(exported.with_name(METRICS_FILE))
        self.pipeline = Pipeline((StageSpec("tune", {"epochs": 1}),))
        self.model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        self.cached = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        cache = PrefixCache(scratch / "cache", 1 << 20)
        assert not cache.put(self.pipeline, self.cached, self.model, (StageTrace("tune", ("0",)),))

    # ---- studies ---------------------------------------------------------------------------------

    def study(
        self, kind: str, harm: Callable[[Path, Any], None], how: Any, *, forged: bool = False
    ) -> Attack:
        """Spoil a copy, look at it in every way; unless it is `forged`, its figures are right or
        refused.
        """
        place = self.scratch / "case"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        directory = place / "study"
        shutil.copytree(self.sound, directory)
        state = repr(how.getstate()[1][:2]) if isinstance(how, random.Random) else how
        harm(directory, how)
        (place / "secret").write_text(SECRET)
        before = contents(place, directory)
        try:
            with at_most(SLOWEST_S):
                outcome, faults = self.looked_at(directory, place, forged=forged)
        except Hung:
            outcome, faults = "hung", ["it hangs"]
        if contents(place, directory) != before:
            faults.append("something outside of the study was written")
        return Attack(
            kind, outcome, f"{'; '.join(faults[:3])} ({harm.__name__}, {state})" if faults else ""
        )

    def looked_at(self, directory: Path, place: Path, *, forged: bool) -> tuple[str, list[str]]:
        out = place / "out"
        faults: list[str] = []
        code, figures = self.shown(directory, faults)
        commands = [["show", directory, "--all"], ["report", directory], ["resume", directory]]
        commands += [
            ["export", directory, "--pick", "knee", "--to", f"{out}/"],
            ["export", directory],
        ]
        self.looks += 1
        if code or not forged:  # what is refused once, or sound, need not be looked at in every way
            commands = [commands[self.looks % len(commands)]]
        for arguments in commands:
            petra(faults, *arguments)
        if code == 0 and not forged and figures != self.figures:
            faults.append("other figures are shown without a word")
        report = directory / "report.html"
        written = [
            *out.glob("*"),
            *((directory / "export").glob("*/*")),
            *([report] if report.is_file() else []),
        ]
        for file in written:
            if file.is_symlink() or file.parent.is_symlink() or not file.is_file():
                continue  # as the attack put it there
            text = file.read_bytes().decode("utf-8", "replace")
            if SECRET in text:
                faults.append(f"{file.name} tells the secret")
            if file.suffix in (".html", ".md") and ("<script>alert" in text or "\x1b" in text):
                faults.append(f"{file.name} holds markup of the study's")
        shutil.rmtree(out, ignore_errors=True)
        return ("read" if code == 0 else "refused"), faults

    def shown(self, directory: Path, faults: list[str] | None = None) -> tuple[int, Any]:
        code, output = petra([] if faults is None else faults, "show", directory, "--all", "--json")
        if code:
            return code, None
        data = json.loads(output)
        return code, data | {"directory": ""}

    # ---- bundles and cache entries ---------------------------------------------------------------

    def bundle(self, draw: random.Random) -> Attack:
        """A bundle whose metrics.json was changed: it names the measured files, or is refused."""
        place = self.scratch / "case" / "bundle"
        shutil.rmtree(place.parent, ignore_errors=True)
        shutil.copytree(self.scratch / "bundle", place)
        (place.parent / "secret").write_text(SECRET)
        path = place / METRICS_FILE
        data = json.loads(path.read_text())
        names = [
            "../secret",
            "/etc/passwd",
            "/proc/kmsg",
            "..",
            ".",
            "",
            "a/b",
            "x\0y",
            ESCAPE,
            "pipe",
            "link",
            *STRANGE,
        ]
        os.mkfifo(place / "pipe")
        (place / "link").symlink_to("../secret")
        match draw.randrange(5):
            case 0:
                data["files"][0]["name"] = draw.choice(names)
            case 1:
                data["files"][0][draw.choice(["name", "sha256", "bytes"])] = draw.choice(STRANGE)
            case 2:
                data[draw.choice(list(data))] = draw.choice(STRANGE)
            case 3:
                data["files"] = draw.choice([*STRANGE, data["files"] * 2, data["files"] * 1000])
        text = json.dumps(data, default=repr)
        content = bytearray(text.encode("utf-8", "surrogatepass"))
        if draw.random() < 0.3:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        if draw.random() < 0.1:
            path.unlink()
            draw.choice(
                [lambda: path.symlink_to("../secret"), lambda: os.mkfifo(path), path.mkdir]
            )()
        try:
            with at_most(SLOWEST_S):
                same = check_recorded(path) == self.recorded
            return Attack(
                "bundle",
                "read",
                "" if same else f"other files are taken for measured: {bytes(content)!r}",
            )
        except Hung:
            return Attack("bundle", "hung", "it hangs")
        except ArtifactError as error:
            return Attack(
                "bundle", "refused", f"tells the secret: {error}" if SECRET in str(error) else ""
            )
        except Exception as error:  # noqa: BLE001 - any other error is what is looked for
            return Attack(
                "bundle",
                "traceback",
                f"{type(error).__name__}: {error} for {bytes(content)[:2000]!r}",
            )

    def cache_entry(self, draw: random.Random) -> Attack:
        """A damaged entry counts as absent, or the model is the one that was stored."""
        place = self.scratch / "case" / "cache"
        shutil.rmtree(place.parent, ignore_errors=True)
        shutil.copytree(self.scratch / "cache", place)
        entry = next(place.glob("*/*"))
        file = draw.choice(sorted(entry.iterdir()))
        data = bytearray(file.read_bytes())
        how = draw.choice(["bits", "cut", "pipe", "link", "deep", "gone"])
        match how:
            case "bits":
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            case "cut":
                del data[draw.randrange(len(data)) :]
            case "deep":
                data = bytearray(b'{"record": ' + b"[" * 100_000)
        file.write_bytes(data)
        if how in ("pipe", "link", "gone"):
            file.unlink()
        if how == "pipe":
            os.mkfifo(file)
        if how == "link":
            file.symlink_to("/proc/kmsg")
        try:
            with at_most(SLOWEST_S):
                found = PrefixCache(place, 1 << 20).longest(self.pipeline, self.model)
        except Hung:
            return Attack("cache entry", "hung", how)
        except Exception as error:  # noqa: BLE001 - any error is what is looked for
            return Attack("cache entry", "traceback", f"{how}: {type(error).__name__}: {error}")
        if found is None:
            return Attack("cache entry", "absent")
        pairs = zip(found[1].parameters(), self.cached.parameters(), strict=True)
        same = all(torch.equal(a, b) for a, b in pairs) and found[2][0].touched == ("0",)
        return Attack("cache entry", "read", "" if same else f"{how}: another model comes out")


def petra(faults: list[str], *arguments: object) -> tuple[int, str]:
    """Run a command in this process and note whatever it should not have done."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    said = f"petra {arguments[0]}"
    if result.exception and not isinstance(result.exception, SystemExit):
        faults.append(f"{said}: {type(result.exception).__name__}: {str(result.exception)[:200]}")
    elif result.exit_code not in (0, 2) or (
        result.exit_code == 2 and not result.stderr.startswith("error: ")
    ):
        faults.append(f"{said}: exit code {result.exit_code}, {result.stderr[:200]!r}")
    text = result.output
    if any(not c.isprintable() and c not in "\n " for c in text):
        odd = next(c for c in text if not c.isprintable() and c not in "\n ")
        faults.append(f"{said}: prints {odd!r}")
    if SECRET in text:
        faults.append(f"{said}: tells the secret")
    return (1 if result.exception and result.exit_code == 1 else result.exit_code), result.stdout


def contents(place: Path, study: Path) -> dict[str, bytes]:
    """What lies beside the study."""
    beside = [
        p
        for top in place.iterdir()
        if top not in (study, place / "out")
        for p in (top, *top.rglob("*"))
    ]
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in beside}


def outside(path: Path) -> Path:
    """The directory that the study lies in."""
    return next(p for p in path.parents if p.name == "study").parent


# ---- harm: damage --------------------------------------------------------------------------------


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
SAYINGS = (
    ESCAPE,
    MARKUP,
    "\u202egnp.exe\u2066",
    "\x9b31m",
    "a\n  \n| forged | row |\r\x1b[2J",
    "\x00",
    "[/]",
    "x" * 20_000,
    "\n",
    "",
)


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


# ---- harm: schemas and layouts -------------------------------------------------------------------

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"
SCHEMAS: dict[str, Callable[[Path, str], None]] = {}
LAYOUTS: dict[str, Callable[[Path, str], None]] = {}


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
