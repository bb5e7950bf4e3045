"""The study's memory: a row per proposal and one for what came of it, safe once they are added."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine

from petra.core.errors import StoreError
from petra.core.objective import Metrics
from petra.core.trial import Proposal, Trial
from petra.store import reading
from petra.store.checked import to_json
from petra.store.database import (
    begin_study,
    check_file,
    connect,
    guarded,
    holds_study,
    reading_from,
)
from petra.store.layout import StudyPaths, check_layout, make_directory
from petra.store.lock import WriterLock
from petra.store.opening import Found, brought_up, look
from petra.store.points import Points
from petra.store.records import study_row
from petra.store.schema import STUDY
from petra.store.sealing import seal
from petra.store.writing import Writing


class Store:
    """Proposals and trials of one study, in its directory or wherever an SQLAlchemy URL points.

    Made by `Store.create` or `Store.open`, closed by `close` or a ``with`` block. Every failure of
    the directory or the database is a `StoreError`. The directory holds the writer's lock even when
    the database is elsewhere.
    """

    def __init__(
        self, directory: Path, engine: Engine, where: str, lock: WriterLock | None
    ) -> None:
        self.directory = directory
        self._engine = engine
        self._where = where
        self._lock = lock
        self._found = Found()  # its content is kept up while writing
        self._earlier = 0.0  # seconds of search in earlier sessions
        # When this session began, by the monotonic clock; None: not writing.
        self._began: float | None = None

    @classmethod
    def create(
        cls,
        directory: Path,
        config: Mapping[str, Any],
        host: Mapping[str, Any],
        *,
        notes: Mapping[str, object] | None = None,
        url: str | None = None,
    ) -> Store:
        """Begin a study and open it for writing; the directory is made if need be.

        `config`, `host` and `notes` (`set_note`) are JSON data; all is there, or no study. Raises
        StoreError when the directory already holds one.
        """
        study = study_row(config, host)
        make_directory(directory)
        check_layout(directory)
        path = StudyPaths(directory).database
        if url is None and path.exists():
            check_file(path)
        store = cls._connect(directory, url, WriterLock(directory))
        with store._closed_on_error(), guarded(store._where), store._engine.begin() as connection:
            begin_study(connection, study, where=directory)
            writing = Writing(connection, store._found.content)
            for name, value in (notes or {}).items():
                writing.note(name, value)
            writing.finish()
            seal(connection, writing.content)
        store._found = replace(store._found, content=writing.content)
        store._hold(url)
        store._began = time.monotonic()
        return store

    @classmethod
    def open(
        cls, directory: Path, *, write: bool, url: str | None = None, whole: bool = True
    ) -> Store:
        """Open a study. Writing takes the study's lock and begins a session; reading never waits
        for anybody.

        Raises StoreError when there is no study, when it is damaged (the whole file is checked), of
        another schema version, or, for writing, in the hands of another process. What an earlier
        petra wrote is read as it is, and brought to this schema when it is opened for writing.

        For a look at a large study, `whole` may be False: then `points` has what a front is
        computed from, checked like the study's row and notes, and of proposals and trials those
        that are read are checked then. Where points are not kept, it is opened as a whole.
        """
        check_layout(directory)
        if url is None:
            check_file(StudyPaths(directory).database)
        store = cls._connect(directory, url, WriterLock(directory) if write else None)
        with store._closed_on_error():
            with store._reading() as connection:
                store._found = look(connection, store._where, whole=whole or write)
            store._hold(url)
            store._earlier = store.elapsed()
            if write:
                with guarded(store._where), store._engine.begin() as connection:
                    store._found = brought_up(connection, store._found)
            store._began = time.monotonic() if write else None
        return store

    @staticmethod
    def exists(directory: Path) -> bool:
        """Whether `directory` holds a study of its own, in whatever condition.

        An interrupted creation is none.
        """
        return holds_study(StudyPaths(directory).database)

    @classmethod
    def _connect(cls, directory: Path, url: str | None, lock: WriterLock | None) -> Store:
        try:
            engine, where = connect(directory, url, write=lock is not None)
        except StoreError:
            if lock:
                lock.release()
            raise
        return cls(directory, engine, where, lock)

    @contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:  # whatever it was, and on it goes: the lock must not outlive it
            self.close()
            raise

    # -- the study ---------------------------------------------------------------------------------

    @property
    def config(self) -> dict[str, Any]:
        """The configuration the study was created with, or last continued with."""
        with self._reading() as connection:
            return reading.read_setting(connection, STUDY.c.config)

    @property
    def host(self) -> dict[str, Any]:
        """The machine the study was created on."""
        with self._reading() as connection:
            return reading.read_setting(connection, STUDY.c.host)

    @property
    def created(self) -> datetime:
        """When the study was created."""
        with self._reading() as connection:
            return reading.read_created(connection)

    def set_config(self, config: Mapping[str, Any]) -> None:
        """Replace the configuration; what may change between sessions of one study is the caller's
        to decide.
        """
        text = to_json(dict(config), where="the study's configuration")
        with self._writing() as writing:
            writing.connection.execute(STUDY.update().values(config=text))

    def elapsed(self) -> float:
        """Seconds of search, summed over the study's sessions.

        A session lasts while the store is open for writing, and its time is kept with every write;
        one that was killed counts up to its last write.
        """
        if self._began is not None:
            return self._earlier + time.monotonic() - self._began
        with self._reading() as connection:
            return reading.read_elapsed(connection)

    def set_note(self, name: str, value: object) -> None:
        """Keep a small fact about the study, JSON data, under `name`; an earlier one is
        replaced.
        """
        with self._writing() as writing:
            writing.note(name, value)

    def note(self, name: str) -> Any:
        """The fact under `name`, None when there is none."""
        with self._reading(f"note {name!r}: ") as connection:
            return reading.read_note(connection, self._found.version, name)

    # -- trials ------------------------------------------------------------------------------------

    def propose(self, proposal: Proposal) -> None:
        """Keep a proposal before it runs. Raises StoreError when its number, or its pipeline at its
        fidelity, is there already.
        """
        with self._writing() as writing:
            writing.proposal(proposal)

    def add(self, trial: Trial) -> None:
        """Keep a finished trial for good, and what it is the result of unless that is kept: when
        this returns, killing the process cannot lose it.

        Raises StoreError, and keeps nothing, when its number or its pipeline at its fidelity is
        there already, when it is not the result of its proposal or a number in it is not finite.
        """
        with self._writing() as writing:
            writing.trial(trial)

    def set_test(self, number: int, metrics: Metrics) -> None:
        """Add the test-split measurements of a trial. Raises StoreError when it has some, unless
        all that differ were timed: that split is read once, and speed may be measured longer.
        """
        with self._writing() as writing:
            writing.test(number, metrics)

    @property
    def points(self) -> Points | None:
        """What a front is computed from, see `open`."""
        return self._found.points

    def proposals(self, *, open_only: bool = False) -> list[Proposal]:
        """All proposals by number, or those without a trial; number 0 is the untouched model's."""
        with self._reading() as connection:
            return reading.read_proposals(connection, self._found.version, open_only=open_only)

    def trials(self, numbers: Collection[int] | None = None) -> list[Trial]:
        """All trials, or those of these numbers, all there, by number. Raises StoreError."""
        with self._reading() as connection:
            found = reading.read_trials(connection, self._found.version, numbers)
        if missing := set(numbers or ()) - {trial.number for trial in found}:
            what = f"{self._where}: there is no trial {min(missing)}"
            raise StoreError(what, hint="list the trials to see their numbers")
        return found

    def trial(self, number: int) -> Trial:
        """One trial. Raises StoreError when there is none of that number."""
        return self.trials([number])[0]

    # -- plumbing ----------------------------------------------------------------------------------

    def _reading(self, what: str = "") -> AbstractContextManager[Connection]:
        return reading_from(self._engine, self._where, what)

    def _hold(self, url: str | None) -> None:
        """Notice from now on when the database file is deleted or replaced."""
        if self._lock and url is None:
            self._lock.watch(StudyPaths(self.directory).database)

    def check_held(self) -> None:
        """Raise StoreError unless directory, lock and database are still those that were opened."""
        if self._lock:
            self._lock.check()

    @contextmanager
    def _writing(self) -> Iterator[Writing]:
        """One write transaction, which also keeps the time."""
        if self._began is None:
            raise StoreError(f"{self._where} is not open for writing", hint="open with write=True")
        self.check_held()
        with guarded(self._where), self._engine.begin() as connection:
            writing = Writing(connection, self._found.content)
            yield writing
            writing.finish()
            connection.execute(STUDY.update().values(elapsed_s=self.elapsed()))
            seal(connection, writing.content)
            self.check_held()  # what is committed to a file that was deleted meanwhile is not kept
        self._found = replace(self._found, content=writing.content)
        self.check_held()

    def close(self) -> None:
        """Keep the time, fold the log into the database file, let go of the lock. Also twice."""
        try:
            if self._began is not None:
                with self._writing():
                    pass
        finally:
            self._began = None
            self._engine.dispose()
            if self._lock:
                self._lock.release()
                self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self.close()
        except StoreError:
            if error is None:  # what went wrong first is what is told
                raise
