"""One writer per study directory, by a lock that the kernel lets go of when its holder dies,
however it dies.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import socket
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from petra.core.errors import StoreError
from petra.core.text import printable
from petra.store.layout import LOCK_FILE, StudyPaths

_PATIENCE_S = 0.2  # with somebody who only looks whether the lock is free


@dataclass(frozen=True)
class Holder:
    """The process that writes a study, as far as it has said so: number, machine, and since when in
    seconds since the epoch.
    """

    pid: int = 0
    host: str = ""
    since: float = 0.0


def current_holder(directory: Path) -> Holder | None:
    """Who writes the study in `directory` now; None: nobody, or there is no study.

    The kernel is asked, by a lock that is shared, let go of at once and waited for by writers: what
    the file says counts only while it is locked.
    """
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        handle = os.open(StudyPaths(directory).lock, flags)
    except OSError:
        return None
    try:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _named(os.read(handle, 10_000).decode("utf-8", "replace"))
    except OSError:  # a file system without locks
        return None
    finally:
        os.close(handle)
    return None


def _named(text: str) -> Holder:
    try:
        said = json.loads(text)
        pid, host, since = int(said["pid"]), str(said["host"]), float(said["since"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return Holder()
    known = math.isfinite(since) and abs(since) < 1e11 and 0 <= pid < 2**31
    return Holder(pid, printable(host)[:100], since) if known else Holder()


class WriterLock:
    """Exclusive `flock` on ``<directory>/study.lock`` and on the directory itself, held from
    construction to `release`.

    The file stays behind when the lock is released: deleting it would let two processes lock two
    different files of the same name. Its text names the last holder and means nothing by itself.
    Should somebody else delete it, the lock on the directory still keeps a second writer out.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._watched: dict[Path, os.stat_result] = {}
        path = StudyPaths(directory).lock
        try:
            self._file: IO[str] = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise StoreError(
                f"{directory}: cannot write here: {error.strerror}",
                hint="choose a directory you may write to, or free the disk",
            ) from error
        self._fd = -1
        try:
            self._take(directory)
            self._file.truncate(0)
            json.dump(
                {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}, self._file
            )
            self._file.flush()
        except OSError as error:  # a full disk: what the file says is only for people
            self._fail(error)
        except StoreError:
            self.release()
            raise
        self.watch(directory)
        self.watch(path)

    def _take(self, directory: Path) -> None:
        try:
            _lock_file(self._file)
            self._fd = os.open(directory, os.O_RDONLY)
            _lock_directory(self._fd)
        except BlockingIOError as error:
            raise StoreError(
                f"{directory}: this study is being written by {_holder(self._file)}",
                hint="wait for it or stop it; reading (report, show, export) works meanwhile",
            ) from error
        except OSError as error:
            raise StoreError(
                f"{directory}: cannot lock {LOCK_FILE}: {error.strerror}",
                hint="the file system has no locks; put the study on a local disk",
            ) from error

    def _fail(self, error: OSError) -> NoReturn:
        self.release()
        raise StoreError(
            f"{self._directory}: cannot write here: {error.strerror}",
            hint="free the disk, and continue",
        ) from error

    def watch(self, path: Path) -> None:
        """Notice from now on, in `check`, when `path` is not the file any more that it is now."""
        try:
            self._watched[path] = path.stat()
        except OSError as error:
            self._fail(error)

    def check(self) -> None:
        """Raise StoreError when a watched file or the directory was deleted, moved or replaced
        since.

        What lies there now may be somebody else's. Costs three `stat` calls.
        """
        for path, before in self._watched.items():
            try:
                now = path.stat()
            except OSError:
                now = None
            if now is None or not os.path.samestat(now, before):
                what = "is gone" if now is None else "is another one now"
                raise StoreError(
                    f"{path} {what}: it was deleted, moved or replaced while this study was being"
                    " written",
                    hint=(
                        "nothing is written any more; what lies there now can be continued as it is"
                    ),
                )

    def release(self) -> None:
        """Let others write."""
        self._file.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _lock_file(file: IO[str]) -> None:
    """Lock a file, which others look at for an instant. Raises BlockingIOError."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise
        time.sleep(0.005)


def _lock_directory(fd: int) -> None:
    """Lock a directory, where the file system has such locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return


def _holder(file: IO[str]) -> str:
    """'process 123 on host since ...', as far as the file tells: the holder may be about to write
    its name.
    """
    file.seek(0)
    try:
        holder = json.load(file)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
        return f"process {holder['pid']} on {holder['host']} since {since}"
    except (json.JSONDecodeError, KeyError, TypeError):
        return "another process"
