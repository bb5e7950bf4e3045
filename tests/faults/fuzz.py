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

import petra
from petra.config import load_config, parse_config
from petra.core.errors import PetraError
from petra.problem import check_settings
from petra.store.layout import check_writable

IN_PROCESS, BY_COMMAND = 10_000, 300
SLOWEST_S = 5.0  # to read any file
ESCAPE = "\x1b]0;owned\x07"

VALID: dict[str, Any] = {
    "workload": {"name": "digits", "args": {"width": 8, "epochs": 1, "seed": 0}},
    "target": {"runtime": "onnxruntime", "threads": 1, "batch": 1, "throughput_batch": 64},
    "objectives": ["quality", "latency", "size"],
    "constraints": ["quality >= baseline - 0.03", "size <= 300 kB", "latency_ms <= 0.5 * baseline"],
    "budget": {
        "time": "10 min",
        "trials": 20,
        "generations": 3,
        "goal": ["size <= 0.5 * baseline"],
    },
    "search": {"name": "evolution", "population": 4, "offspring": 4, "stagnation": 0},
    "space": {
        "stages": {
            "tune": {"epochs": [1, 3], "lr": [0.01, 0.1]},
            "quantize.static": {"observer": "minmax"},
        },
        "max_length": 3,
        "initial": [["tune", {"stage": "quantize.static", "params": {"observer": "minmax"}}]],
    },
    "limits": {
        "trial_time": "5 min",
        "trial_memory": "2 GiB",
        "workers": 1,
        "build_threads": 1,
        "cache": "1 GiB",
    },
    "seed": 0,
    "device": "cpu",
    "workdir": "out",
}
STRANGE: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        10**30,
        0.5,
        -0.0,
        1e308,
        float("inf"),
        float("-inf"),
        float("nan"),
    ),
    *(
        "",
        " ",
        "²",
        "١٢",
        "-1",
        "1e400",
        "9" * 400,
        "9" * 5000,
        "1_000",
        "0x10",
        "inf",
        "nan",
        "yes",
        "~",
        "null",
    ),
    *(
        "9" * 400 + " h",
        "9" * 400 + " GiB",
        "-5 min",
        "1 fortnight",
        "1:30",
        "2001-13-45",
        "../..",
        "/dev/null",
    ),
    *(
        "/proc/self/mem/x",
        "~/x",
        "a\0b",
        "a\nb",
        ESCAPE,
        "\u202etxt.exe",
        "x" * 300,
        "x" * 5000,
        "é",
        "\ud800",
    ),
    *(
        [],
        {},
        [[]],
        [None],
        {"": None},
        {"a": {"b": {}}},
        [1, 2, 3],
        ["tune"],
        {"name": "digits"},
        [{"stage": 3}],
    ),
    *(
        "quality >= ",
        "size <= 1e400",
        "size <= " + "9" * 400,
        "size < 3",
        "size <= nan",
        "size <= ²",
        ">=",
        "1 <= size",
    ),
    *(
        "size <= 0",
        "latency <= -1 * baseline",
        "quality >= baseline * baseline",
        "size <= 1 kB; import os",
        "onnx",
    ),
    *(
        "os:system",
        "os.system",
        "a..b:c",
        ":",
        "a:",
        ":b",
        "1a:b",
        "petra.nothing:x",
        "cuda:99",
        "gpu",
        "evolutoin",
    ),
)
# Files as text that the YAML library itself trips over, or that would mean more than they say.
TEXTS: tuple[str, ...] = (
    "seed: 2001-13-45",
    "seed: !!int foo",
    "seed: !!float bar",
    "seed: !!bool baz",
    "seed: !!timestamp 2001-99-99",
    "seed: !!binary '*'",
    "seed: !!null x",
    "seed: !!python/object/apply:os.system ['touch canary']",
    "seed: !!python/name:os.system",
    "seed: !unknown 1",
    "seed: !!set {a, b}",
    "seed: !!omap [a: 1]",
    "seed: " + "9" * 5000,
    "seed: 0x" + "f" * 5000,
    "seed: 0b" + "1" * 5000,
    "seed: 1:" + "59:" * 500 + "59",
    "seed: 0x",
    "seed: 0b",
    "seed: 0_",
    "seed: 1._",
    "seed: ." + "_" * 50,
    "seed: " + "[" * 2000,
    "seed: " + "[" * 500 + "]" * 500,
    "seed: " + "{a: " * 300 + "1" + "}" * 300,
    "- " * 2000,
    "? " * 2000,
    "seed: 1\nseed: 2",
    "target: {threads: 1, threads: 2}",
    "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(
        f"{n}: &{n} [{', '.join(['*' + p] * 9)}]\n"
        for p, n in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "a: &a [*a]",
    "a: &a {b: *a}",
    "<<: &a {<<: *a}",
    "<<: 3",
    "<<: [1, 2]",
    "<<: {seed: x}",
    "a: *nowhere",
    "? [1, 2]\n: 3",
    "? {a: b}\n: 3",
    "1: 2",
    "null: 2",
    "true: x",
    "=: 3",
    "seed: =",
    "\tseed: 1",
    "seed:\t[\t1",
    "seed: 'unclosed",
    'seed: "\\xzz"',
    'seed: "\\ud800"',
    "%YAML 9.9\n---\nseed: 1",
    "%TAG ! tag:x,2000:\n---\nseed: !x 1",
    "---\nseed: 1\n---\nseed: 2",
    "--- |\n text",
    "",
    "#",
    "---",
    "null",
    "3",
    "text",
    "[]",
    "seed: |\n  x\n bad",
    "&a &b seed: 1",
    "seed: @x",
    "seed: `x`",
    ESCAPE,
    f"{ESCAPE}: 1",
    f"seed: '{ESCAPE}",
    "workload: digits\nworkdir: ~",
    "workload: digits\nworkdir: ''",
    "workload: digits\nbudget: {time: .inf}",
    "workload: digits\nbudget: {trials: yes}",
)
BYTES: tuple[bytes, ...] = (
    b"seed: 1\0",
    b"\0" * 100,
    b"\xff\xfe" + "seed: 1".encode("utf-16-le"),
    b"\xef\xbb\xbf\xef\xbb\xbfseed: x",
    b"seed: \xe9",
    b"seed: \xed\xa0\x80",
    b"seed: \xc2\x85\xc2\x9b",
    b"\x89PNG\r\n\x1a\n",
    b"SQLite format 3\x00",
    b"seed: x\r",
    b"x" * (1 << 21),
)


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
        or not done.stderr.startswith(b"error: ")
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
