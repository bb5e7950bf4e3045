"""A study looked at again and again while another process writes it, which never notices.

Nothing is locked for longer than it takes to read, nothing is read that has not changed, and what
reading costs is kept to a tenth of the time: candidates may be being timed on this machine.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from petra.core.errors import PetraError, StoreError
from petra.core.metric import required_metrics
from petra.core.trial import Proposal, Trial
from petra.front import Front
from petra.report.record import StudyRecord
from petra.store.activity import Activity, read_activity
from petra.store.checked import DAMAGE_HINT
from petra.store.layout import StudyPaths
from petra.store.lock import Holder, current_holder
from petra.store.store import Store
from petra.store.stored_trials import StoredTrials

LEAST_S = 0.5  # between two looks, however many ask
SHARE = 0.1  # of the time, at most, is spent reading
_AT_ONCE = 500  # trials in one transaction

Token = tuple[object, ...]
_NONE: Token = ()


@dataclass(frozen=True)
class Seen:
    """What a study held when it was read: `trials` by number, all of the front's; `waiting` are the
    proposals that have not ended. `version` differs whenever anything else does.
    """

    version: int
    record: StudyRecord
    front: Front
    trials: Sequence[Trial]
    waiting: Sequence[Proposal]


@dataclass(frozen=True)
class Look:
    """One look at a study. `seen` is the last that could be read, None if nothing could; `trouble`
    says why it cannot be read now. `holder` is who writes it, None: nobody. `at` is when, in
    seconds since the epoch, and `written` when the study was last written.
    """

    seen: Seen | None
    trouble: PetraError | None
    holder: Holder | None
    activity: Activity | None
    at: float
    written: float

    @property
    def elapsed_s(self) -> float:
        """Seconds of search so far: what is stored, and while a session runs what has passed
        since.
        """
        stored = self.seen.record.elapsed_s if self.seen else 0.0
        if self.holder is None:
            return stored
        if self.activity:
            return max(stored, self.activity.elapsed_s + max(0.0, self.at - self.activity.at))
        return stored + max(0.0, self.at - max(self.written, self.holder.since))


class Watched:
    """The study in `directory`, for any number of threads that look at it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._look: Look | None = None
        self._token: Token = _NONE
        self._next = (0.0, 0.0)  # when to look, and when to read, again: by the monotonic clock
        self._seen: Seen | None = None
        self._trouble: PetraError | None = None
        self._known: dict[int, Trial] = {}
        self._identity: object = None

    def look(self) -> Look:
        """The study as it is, at most half a second ago. Raises nothing about the study."""
        with self._lock:
            if self._look is None or time.monotonic() >= self._next[0]:
                self._look = self._looked()
            return self._look

    def spent(self, seconds: float) -> None:
        """What was made of the study took so long: as if reading had."""
        with self._lock:
            self._rest(seconds)

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds * (1 / SHARE - 1)
        self._next = (self._next[0], max(self._next[1], until))

    def _looked(self) -> Look:
        # First who writes, then what: what a session that ended in between wrote last is read.
        holder = current_holder(self.directory)
        files = _files(self.directory)
        token, began = _token(files), time.monotonic()
        # Where nobody writes, nothing is disturbed.
        if token != self._token and (holder is None or began >= self._next[1]):
            self._read(token)
            self._rest(time.monotonic() - began)
        self._next = (time.monotonic() + LEAST_S, self._next[1])
        activity = read_activity(self.directory, since=holder.since if holder else 0.0)
        written = max((f.st_mtime for f in files if f), default=0.0)
        return Look(self._seen, self._trouble, holder, activity, time.time(), written)

    def _read(self, token: Token) -> None:
        try:
            self._seen, self._trouble = self._study(token[0]), None
        except PetraError as error:
            self._trouble = error
        except OSError as error:
            self._trouble = StoreError(f"{self.directory}: {error.strerror or error}")
        replaced = _token(_files(self.directory))[0] != token[0]  # while it was read
        self._token = _NONE if replaced or self._trouble else token
        if replaced or self._trouble:
            self._identity = None

    def _study(self, which: object) -> Seen:
        record = StudyRecord.load(self.directory, whole=False)
        with Store.open(self.directory, write=False, whole=False) as store:
            identity = (which, store.created, store.host, store.config, record.leading[:1])
            if identity != self._identity:  # another study lies here now
                self._known, self._identity = {}, identity
            trials = self._trials(record, store)
            waiting = store.proposals(open_only=True)
        front = record.front()
        if isinstance(record.trials, StoredTrials):
            front = replace(front, trials=StoredTrials(record.trials.points, lambda: trials))
        version = self._seen.version + 1 if self._seen else 1
        return Seen(version, record, front, trials, waiting)

    def _trials(self, record: StudyRecord, store: Store) -> tuple[Trial, ...]:
        """All trials, of which only those are read that were not known or may have changed."""
        known = self._known
        known.update({trial.number: trial for trial in record.leading})
        if isinstance(record.trials, StoredTrials):
            new = [n for n in record.trials.points.numbers.tolist() if n not in known]
            for start in range(0, len(new), _AT_ONCE):
                found = store.trials(new[start : start + _AT_ONCE])
                _check(found, record)
                known.update({trial.number: trial for trial in found})
        return tuple(known[number] for number in sorted(known))


def _check(trials: Sequence[Trial], record: StudyRecord) -> None:
    """Refuse measured trials that lack what all have, which a study read as a whole is held to."""
    wanted = {*required_metrics(record.config.metrics_named()), *(m.name for m in record.task[1:])}
    for trial in trials:
        if trial.measured and (lacking := sorted(wanted - trial.metrics.keys())):
            raise StoreError(
                f"{record.directory} is damaged: trial {trial.number} has no {', '.join(lacking)}",
                hint=DAMAGE_HINT,
            )


def _files(directory: Path) -> list[os.stat_result | None]:
    """The database and its log as they lie there; nothing is opened."""
    database = StudyPaths(directory).database
    found: list[os.stat_result | None] = []
    for path in (database, database.with_name(f"{database.name}-wal")):
        try:
            stat = path.lstat()
        except OSError:
            found.append(None)
        else:
            found.append(stat if stat.st_size else None)  # an empty log is made by reading
    return found


def _token(files: list[os.stat_result | None]) -> Token:
    """What differs once anything was written; its first says which database it is."""
    first = files[0]
    which = None if first is None else (first.st_dev, first.st_ino)
    return (which, *((f.st_ino, f.st_mtime_ns, f.st_size) if f else None for f in files))
