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
from fuzz import Hung, at_most
from fuzz_contents import ESCAPE
from hostile_values import SAYINGS, STRANGE
from study_harm import cut, edit, flip_bits, forge, speak
from study_layouts import LAYOUTS, SCHEMAS
from torch import nn
from typer.testing import CliRunner

from petra.cli.main import app
from petra.core.errors import ArtifactError
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import StageTrace
from petra.execute.cache import PrefixCache
from petra.report.recorded import METRICS_FILE, check_recorded
from petra.report.study_front import StudyFront
from petra.testing.studies import toy_study

SECRET = "not for anybody's eyes"
SLOWEST_S = 30.0


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


def _an_error(text: str) -> bool:
    """Whether a message is one of petra's, after what is said while a study loads."""
    return text.removeprefix("loading model and data\n").startswith("error: ")


def petra(faults: list[str], *arguments: object) -> tuple[int, str]:
    """Run a command in this process and note whatever it should not have done."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    said = f"petra {arguments[0]}"
    if result.exception and not isinstance(result.exception, SystemExit):
        faults.append(f"{said}: {type(result.exception).__name__}: {str(result.exception)[:200]}")
    elif result.exit_code not in (0, 2) or (result.exit_code == 2 and not _an_error(result.stderr)):
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
