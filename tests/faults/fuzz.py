"""Study files that are wrong in every way: each is refused with one message, before anything is
written.

Files are made by changing a valid one at a few places of its structure, in its text, or in its
bytes. Most are read in this process, where thousands take seconds; some through the command, whose
exit code, output and directory are looked at. What is read without complaint must mean something:
it is dumped and read again.
"""

from __future__ import annotations

import copy
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from attack import Attack
from fuzz_contents import BYTES, ESCAPE, STRANGE, TEXTS, VALID

import petra
from petra.config import load_config, parse_config
from petra.core.errors import PetraError
from petra.problem import check_settings
from petra.store.layout import check_writable

IN_PROCESS, BY_COMMAND = 10_000, 300
SLOWEST_S = 5.0  # to read any file


def campaign(scratch: Path, *, seed: int, seconds: float) -> Iterator[Attack]:
    """At most 10,000 files in this process, then 300 through the command, in shares of the time of
    two to three.
    """
    check_settings(parse_config(VALID))  # loads what is loaded once
    began = time.monotonic()
    draw = random.Random(seed)
    for n in range(IN_PROCESS):
        if time.monotonic() - began > 0.4 * seconds:
            break
        yield read_here(scratch, *hostile(draw, n))
    for n in range(BY_COMMAND):
        if time.monotonic() - began > seconds:
            break
        yield by_command(scratch / f"{n}", *hostile(draw, n * 7))


def hostile(draw: random.Random, n: int) -> tuple[str, bytes]:
    """(kind, content) of a file; the listed ones come first."""
    listed = [*(t.encode("utf-8", "surrogatepass") for t in TEXTS), *BYTES]
    if n < len(listed):
        return "listed", listed[n]
    kind = draw.choice(["values", "values", "keys", "text", "bytes"])
    if kind == "values":
        return kind, dumped(changed(draw, draw.randint(1, 3), put_value))
    if kind == "keys":
        return kind, dumped(changed(draw, draw.randint(1, 3), spoil_key))
    data = bytearray(dumped(some_of_valid(draw)))
    if kind == "text":
        text = data.decode()
        for _ in range(draw.randint(1, 4)):
            at, piece = (
                draw.randrange(len(text)),
                draw.choice([*"[]{}:,&*!|>'\"%@`#?-\t\n", *TEXTS[:20], ESCAPE]),
            )
            text = text[:at] + piece + text[at + draw.randint(0, 5) :]
        return kind, text.encode("utf-8", "surrogatepass")
    for _ in range(draw.randint(1, 8)):
        data[draw.randrange(len(data))] = draw.randrange(256)
    return kind, bytes(data)


def some_of_valid(draw: random.Random) -> dict[str, Any]:
    """The valid file with some of its sections, the first always among them."""
    return {
        key: copy.deepcopy(value)
        for key, value in VALID.items()
        if key == "workload" or draw.random() < 0.4
    }


def changed(
    draw: random.Random, times: int, change: Callable[[random.Random, Any, Any], None]
) -> Any:
    data = some_of_valid(draw)
    for _ in range(times):
        places = list(containers(data))
        holder, key = draw.choice(places) if places else (None, None)
        if holder is not None:
            change(draw, holder, key)
    return data


def containers(data: Any) -> Iterator[tuple[Any, Any]]:
    pairs = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    for key, value in list(pairs):
        yield data, key
        yield from containers(value)


def put_value(draw: random.Random, holder: Any, key: Any) -> None:
    holder[key] = copy.deepcopy(draw.choice(STRANGE))


def spoil_key(draw: random.Random, holder: Any, key: Any) -> None:
    if isinstance(holder, list):
        holder.insert(key, copy.deepcopy(draw.choice(STRANGE)))
        return
    value = holder.pop(key)
    new = draw.choice(
        [f"{key}s", str(key)[1:], str(key).upper(), ESCAPE, "", "x" * 3000, 3, None, True]
    )
    if draw.random() < 0.7:
        holder[new] = value


def dumped(data: Any) -> bytes:
    return yaml.dump(data, allow_unicode=True, sort_keys=False).encode("utf-8", "surrogatepass")


# ---- in this process -----------------------------------------------------------------------------


def read_here(scratch: Path, kind: str, content: bytes) -> Attack:
    kind = f"study file, {kind}, read"
    path = scratch / "study.yaml"
    path.write_bytes(content)
    try:
        with at_most(SLOWEST_S):
            config = load_config(path)
            check_settings(config)
            check_writable(scratch / config.workdir)
            again = parse_config(config.model_dump(mode="json"))
    except PetraError as error:
        fault = "" if str(error).strip() else f"an empty message for {content[:300]!r}"
        return Attack(kind, "refused", fault)
    except Hung:
        return Attack(kind, "hung", f"more than {SLOWEST_S} s for {content[:300]!r}")
    except Exception as error:  # noqa: BLE001 - any other error is what is looked for
        return Attack(
            kind, "traceback", f"{type(error).__name__}: {str(error)[:200]} for {content[:2000]!r}"
        )
    fault = "" if again == config else f"reads back as something else: {content[:2000]!r}"
    return Attack(kind, "accepted", fault)


class Hung(BaseException):
    """The time is over; nothing that petra catches."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---- through the command -------------------------------------------------------------------------


def by_command(place: Path, kind: str, content: bytes) -> Attack:
    """`petra run` of a file that is refused here: in a directory of its own, where nothing may
    appear.
    """
    here = place / "run"
    here.mkdir(parents=True, exist_ok=True)
    if read_here(here, kind, content).outcome == "accepted":
        content += b"\nnot_a_key: 1\n"
    path = here / "study.yaml"
    path.write_bytes(content)
    kind = f"study file, {kind}, petra run"
    command = [sys.executable, "-m", "petra.cli.main", "run", str(path)]
    environment = {**os.environ, "XDG_STATE_HOME": str(place / "state"), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(petra.__file__).parents[1])
    try:
        done = subprocess.run(
            command,
            cwd=here,
            env=environment,
            capture_output=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return Attack(kind, "hung", f"{content[:2000]!r}")
    fault = ""
    if (
        done.returncode != 2
        or not done.stderr.removeprefix(b"loading model and data\n").startswith(b"error: ")
        or b"Traceback" in done.stderr
    ):
        fault = f"exit code {done.returncode}: {done.stderr[-500:]!r}"
    elif done.stdout or b"\x1b" in done.stderr:
        fault = f"output {done.stdout[:200]!r}, errors {done.stderr[:500]!r}"
    elif left := sorted(
        str(p.relative_to(place)) for p in place.rglob("*") if p.is_file() and p != path
    ):
        fault = f"written: {', '.join(left[:5])}"
    return Attack(
        kind,
        "refused" if done.returncode == 2 else "other",
        f"{fault} for {content[:2000]!r}" if fault else "",
    )
