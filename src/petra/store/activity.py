"""What a running study is doing, for whoever watches from another process.

A small file beside the database, written anew at every event and gone when the session ends, after
which the study is as if there had been none. One that was killed leaves the last one behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from petra.core.notes import StepBegan, WorkerNote
from petra.core.text import printable
from petra.core.trial import Proposal, Trial
from petra.listener import Clock, Listener
from petra.store import checked
from petra.store.layout import ACTIVITY_FILE

PROGRESS_EVERY_S = 1.0  # between two writes that only say how far a step is
_TEMPORARY = f".{ACTIVITY_FILE}"
_MOST_BYTES = 1 << 18
_MOST_RUNNING = 1000
_LONGEST = 500  # characters of a text
_SEARCHING = "searching"
_PHASES = ("measuring the untouched model", "confirming ")  # messages that begin one, so begin


@dataclass(frozen=True)
class Step:
    """What is being done with a candidate: step `name`, its stage `index` of so many `stages` (not
    below: what follows them), `done` of `total` parts, which `text` names. `since`: when the step
    began, in seconds since the epoch.
    """

    name: str
    index: int
    stages: int
    since: float
    done: int = 0
    total: int = 0
    text: str = ""

    def __str__(self) -> str:
        """'prune.structured (stage 1 of 2), 3/40 batches'."""
        words = self.name
        if self.index < self.stages:
            words += f" (stage {self.index + 1} of {self.stages})"
        return words + (f", {self.done}/{self.total} {self.text}".rstrip() if self.total else "")


@dataclass(frozen=True)
class Activity:
    """Which `phase` a session is in, what it `said` last, and which steps are being done, by number
    of the proposal. `elapsed_s` are the study's seconds of search when it was written, which was
    `at` (since the epoch).
    """

    phase: str = ""
    said: str = ""
    running: Mapping[int, Step] = field(default_factory=dict)
    elapsed_s: float = 0.0
    at: float = 0.0

    def as_dict(self) -> dict[str, object]:
        """JSON data, for `from_dict`."""
        return asdict(self) | {"running": {str(n): asdict(s) for n, s in self.running.items()}}

    @staticmethod
    def from_dict(value: object) -> Activity:
        """Read `as_dict` data; ValueError for what is not of that form."""
        data = checked.mapping(value, "an activity")
        running = checked.mapping(data.get("running"), "running")
        if len(running) > _MOST_RUNNING or not all(n.isdecimal() and len(n) < 10 for n in running):
            raise ValueError("running is not about proposals")
        return Activity(
            phase=_line(data.get("phase")),
            said=_line(data.get("said")),
            running={int(n): _step(step) for n, step in running.items()},
            elapsed_s=checked.number(data.get("elapsed_s"), "elapsed_s", negative=False),
            at=checked.number(data.get("at"), "at", negative=False),
        )


def _step(value: object) -> Step:
    data = checked.mapping(value, "a step")
    counts = {n: checked.whole(data.get(n), n) for n in ("index", "stages", "done", "total")}
    since = checked.number(data.get("since"), "since", negative=False)
    return Step(_line(data.get("name")), since=since, text=_line(data.get("text")), **counts)


def _line(value: object) -> str:
    return printable(" ".join(checked.text(value, "a text").split()))[:_LONGEST]


def read_activity(directory: Path, *, since: float = 0.0) -> Activity | None:
    """What the session that began at `since` is doing; None where nothing says it."""
    try:
        text = _read(directory / ACTIVITY_FILE)
        found = Activity.from_dict(checked.from_json(text, ACTIVITY_FILE))
    except (OSError, ValueError):
        return None
    return found if found.at >= since else None


def _read(path: Path) -> str:
    """The text of a plain file. OSError, ValueError."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError(f"{path} is not a file")
        return os.read(handle, _MOST_BYTES).decode()
    finally:
        os.close(handle)


@contextmanager
def told(
    directory: Path, listener: Listener, elapsed: Callable[[], float]
) -> Iterator[ActivityFile]:
    """A listener that passes everything on to `listener` and keeps the file while the block lasts.

    `elapsed()` are the seconds of search so far. What cannot be written is left unsaid: a study
    does not end because nobody can watch it.
    """
    activity = ActivityFile(directory, listener, elapsed)
    try:
        yield activity
    finally:
        activity.close()


class ActivityFile:
    """Hears what a listener hears, from several threads, and writes it down.

    The directory is held open: should it be deleted and another one made in its place, that one is
    not touched.
    """

    def __init__(self, directory: Path, listener: Listener, elapsed: Callable[[], float]) -> None:
        self._listener, self._elapsed = listener, elapsed
        self._lock = threading.Lock()
        self._now = Activity()
        self._written = 0.0
        self._place = -1
        with contextlib.suppress(OSError):
            self._place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self._write()

    def started(self, baseline: Trial, clock: Clock) -> None:
        self._end(baseline.number, phase=_SEARCHING)
        self._listener.started(baseline, clock)

    def stage(self, proposal: Proposal, note: WorkerNote) -> None:
        with self._lock:
            before = self._now.running.get(proposal.number)
            if isinstance(note, StepBegan):
                step = Step(note.name, note.index, len(proposal.pipeline), time.time())
            else:
                step = before or Step("", 0, len(proposal.pipeline), time.time())
                step = replace(step, done=note.done, total=note.total, text=note.text[:_LONGEST])
            self._now = replace(self._now, running={**self._now.running, proposal.number: step})
            if isinstance(note, StepBegan) or time.time() - self._written >= PROGRESS_EVERY_S:
                self._write()
        self._listener.stage(proposal, note)

    def finished(self, trial: Trial, clock: Clock) -> None:
        self._end(trial.number)
        self._listener.finished(trial, clock)

    def message(self, text: str) -> None:
        with self._lock:
            said = text[:_LONGEST]
            self._now = replace(self._now, said=said)
            if text.startswith(_PHASES):  # what ran out of time before it never says that it ended
                self._now = replace(self._now, phase=said, running={})
            self._write()
        self._listener.message(text)

    def _end(self, number: int, phase: str = "") -> None:
        with self._lock:
            running = {n: step for n, step in self._now.running.items() if n != number}
            self._now = replace(self._now, running=running, phase=phase or self._now.phase)
            self._write()

    def _write(self) -> None:
        if self._place < 0:
            return
        self._written = time.time()
        self._now = replace(self._now, elapsed_s=self._elapsed(), at=self._written)
        with contextlib.suppress(OSError):
            _replace(self._place, json.dumps(self._now.as_dict()).encode())

    def close(self) -> None:
        """Take the file away."""
        with self._lock:
            if self._place >= 0:
                for name in (ACTIVITY_FILE, _TEMPORARY):
                    with contextlib.suppress(OSError):
                        os.unlink(name, dir_fd=self._place)
                os.close(self._place)
                self._place = -1


def _replace(place: int, content: bytes) -> None:
    """Write the file in an open directory, such that it is never seen half written."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    handle = os.open(_TEMPORARY, flags, 0o666, dir_fd=place)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.replace(_TEMPORARY, ACTIVITY_FILE, src_dir_fd=place, dst_dir_fd=place)
