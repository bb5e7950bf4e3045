"""Attacks on whoever opens a stranger's ``.pt2`` archive: known ones, then random changes, and no
canary may run."""

from __future__ import annotations

import json
import os
import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archive_attacks import CODE
from archive_bombs import LIMITS
from archive_mutations import mutated
from archive_parts import Archive, Canary, real_archives
from attack import Attack

KNOWN = CODE | LIMITS
PATIENCE_S = 120.0
MEMORY_MB = 3000  # torch and a small model are some 500
CLI_SHARE = 0.25
_HERE = Path(__file__).parent
_SOURCE = _HERE.parents[1] / "src"


def campaign(scratch: Path, *, seed: int, seconds: float) -> Iterator[Attack]:
    """Known attacks in a process that opens one archive after the other, some by ``petra verify``,
    then random ones."""
    until = time.monotonic() + seconds
    archives = real_archives(scratch)
    canary = Canary(scratch / "canary")
    with Opener() as opener:
        wanted = {name: opener.open(scratch / f"{name}.pt2").digest for name in archives}
        for kind, attack in KNOWN.items():
            yield _attempt(
                opener, kind, attack(archives["float"], canary), canary, scratch, wanted, kind
            )
        share = time.monotonic() + seconds * CLI_SHARE
        for kind in random.Random(seed).sample(list(KNOWN), len(KNOWN)):
            if time.monotonic() > share:
                break
            yield _by_command(kind, KNOWN[kind](archives["float"], canary), canary, scratch)
        index = 0
        while time.monotonic() < until:
            source = random.Random(f"{seed}/{index}")
            kind, archive = mutated(archives[source.choice(list(archives))], canary, source)
            yield _attempt(
                opener, kind, archive, canary, scratch, wanted, f"seed {seed}, number {index}"
            )
            index += 1


@dataclass(frozen=True)
class Opened:
    """What opening an archive came to. `fault` when it was no PetraError, took too long or too much
    memory."""

    digest: str = ""
    refused: str = ""
    fault: str = ""


class Opener:
    """A process that opens archives, started again when one ends or hangs it. `how`: "petra", or
    "plain" for PyTorch alone.
    """

    def __init__(self, how: str = "petra") -> None:
        self.how = how
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()

    def __enter__(self) -> Opener:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def open(self, path: Path) -> Opened:
        process = self._started()
        assert process.stdin is not None
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        try:
            line = self._answers.get(timeout=PATIENCE_S)
        except queue.Empty:
            self.stop()
            return Opened(fault=f"it took more than {PATIENCE_S:.0f} s")
        if not line:
            self.stop()
            return Opened(fault="the process died")
        answer: dict[str, Any] = json.loads(line)
        if answer["megabytes"] > MEMORY_MB:
            self.stop()
            return Opened(fault=f"{answer['megabytes']} MB of memory")
        return Opened(answer["digest"], answer["refused"], answer["raised"])

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._answers = queue.Queue()
            self._process = subprocess.Popen(
                [sys.executable, str(_HERE / "archive_worker.py"), self.how],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=_environment(),
            )
            threading.Thread(
                target=_pass_on, args=(self._process, self._answers), daemon=True
            ).start()
        return self._process


def _pass_on(process: subprocess.Popen[str], answers: queue.Queue[str]) -> None:
    """Every line the process prints, and '' when it has ended."""
    assert process.stdout is not None
    for line in process.stdout:
        answers.put(line)
    answers.put("")


def _environment() -> dict[str, str]:
    paths = [str(_SOURCE), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _attempt(
    opener: Opener,
    kind: str,
    archive: Archive,
    canary: Canary,
    scratch: Path,
    wanted: dict[str, str],
    name: str,
) -> Attack:
    path = scratch / "attack.pt2"
    path.write_bytes(archive.to_bytes())
    opened = opener.open(path)
    fault = _ran(canary) or opened.fault
    if opened.refused:
        outcome = "refused"
    elif opened.digest:
        outcome = (
            "computes the same" if opened.digest in wanted.values() else "computes other numbers"
        )
    else:
        outcome = "broke"
    return Attack(kind, outcome, f"{name}: {fault}" if fault else "")


def _by_command(kind: str, archive: Archive, canary: Canary, scratch: Path) -> Attack:
    path = scratch / "attack.pt2"
    path.write_bytes(archive.to_bytes())
    command = [sys.executable, "-m", "petra.cli.main", "verify", str(path)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=_environment(),
            timeout=PATIENCE_S,
            check=False,
            cwd=scratch,
        )
    except subprocess.TimeoutExpired:
        return Attack("petra verify", "broke", f"{kind}: it took more than {PATIENCE_S:.0f} s")
    fault = _ran(canary)
    if done.returncode not in (0, 2) or "Traceback" in done.stderr + done.stdout:
        fault = fault or f"exit code {done.returncode}: {done.stderr.strip()[-200:]}"
    return Attack(
        "petra verify",
        "opened" if done.returncode == 0 else "refused",
        f"{kind}: {fault}" if fault else "",
    )


def _ran(canary: Canary) -> str:
    if canary.path.exists():
        canary.path.unlink()
        return "its code ran"
    return ""
