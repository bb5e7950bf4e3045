"""One writer per study directory, by a lock that the kernel lets go of when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import IO

from petra.core.errors import StoreError

LOCK_FILE = "study.lock"


class WriterLock:
    """Exclusive `flock` on ``<directory>/study.lock``, held from construction to `release`.

    The file stays behind when the lock is released: deleting it would let two processes lock two different files of
    the same name. Its text names the last holder and means nothing by itself.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / LOCK_FILE
        try:
            self._file: IO[str] = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise StoreError(
                f"{directory}: cannot write here: {error.strerror}",
                hint="choose a directory you may write to, or free the disk",
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(self._file)
            self._file.close()
            raise StoreError(
                f"{directory}: this study is being written by {holder}",
                hint="wait for it or stop it; reading (report, show, export) works meanwhile",
            ) from error
        except OSError as error:
            self._file.close()
            raise StoreError(
                f"{directory}: cannot lock {LOCK_FILE}: {error.strerror}",
                hint="the file system has no locks; put the study on a local disk",
            ) from error
        self._file.truncate(0)
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}, self._file)
        self._file.flush()

    def release(self) -> None:
        """Let others write."""
        self._file.close()


def _holder(file: IO[str]) -> str:
    """'process 123 on host since ...', as far as the file tells: the holder may be about to write its name."""
    file.seek(0)
    try:
        holder = json.load(file)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
        return f"process {holder['pid']} on {holder['host']} since {since}"
    except (json.JSONDecodeError, KeyError, TypeError):
        return "another process"
