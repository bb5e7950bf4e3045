"""What caches keep: tensors (safetensors) and a record (JSON), in a directory of bounded size, the
least recently used leaving first.

An entry is a folder ``<context>/<name>``. Entries appear and disappear whole, by renaming, so any
number of processes may use one directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from petra.core.errors import PetraError

DAMAGE = (
    *(PetraError, SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError),
    *(RuntimeError, ArithmeticError, MemoryError),
)
_TENSORS, _RECORD = "model.safetensors", "model.json"
_UNFINISHED = ".unfinished-"
_ABANDONED_S = 3600.0  # an unfinished entry this old was left by a process that died


class Entries:
    """The entries of one `context`; all contexts of `directory` together take `limit_bytes` at
    most.
    """

    def __init__(self, directory: Path, limit_bytes: int, *, context: str) -> None:
        self.directory = directory
        self.limit_bytes = limit_bytes
        self._context = directory / context

    def exists(self, name: str) -> bool:
        return (self._context / name).exists()

    def read(self, name: str) -> tuple[bytes, Any]:
        """Tensors and record of an entry. Raises one of DAMAGE when there is none or anything about
        it is not as it was written.
        """
        outer = json.loads(self._content(name, _RECORD))
        if _digest(outer["record"].encode()) != outer["check"]:
            raise ValueError("the record is damaged")
        record = json.loads(outer["record"])
        tensors = self._content(name, _TENSORS)
        if _digest(tensors) != record["tensors"]:
            raise ValueError("the tensors are damaged")
        return tensors, record

    def used(self, name: str) -> None:
        """Note that an entry was of use now. Raises OSError when it is gone."""
        os.utime(self._context / name)

    def write(self, name: str, tensors: bytes, record: Mapping[str, Any]) -> str:
        """Make an entry; why there is none now, '' when there is. One that is there stays."""
        text = json.dumps({**record, "tensors": _digest(tensors)}, separators=(",", ":"))
        text = json.dumps({"check": _digest(text.encode()), "record": text})
        if len(tensors) + len(text) > self.limit_bytes:
            size = len(tensors) + len(text)
            return f"it takes {size} bytes, and the cache may hold {self.limit_bytes}"
        try:
            self._write(self._context / name, tensors, text)
        except OSError as error:  # a full or read-only disk costs time, not the trial
            return f"it cannot be written: {error.strerror}"
        return ""

    def remove(self, name: str) -> None:
        """Take an entry away, if it is there."""
        with contextlib.suppress(OSError):
            self._remove(self._context / name)

    def _content(self, name: str, file: str) -> bytes:
        """The content of a plain file of at most the limit: no link is followed, no pipe waited
        on.
        """
        descriptor = os.open(
            self._context / name / file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW
        )
        with os.fdopen(descriptor, "rb") as opened:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size > self.limit_bytes:
                raise ValueError("no file that petra made")
            return opened.read(self.limit_bytes)

    def _write(self, entry: Path, tensors: bytes, text: str) -> None:
        self._context.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self._context))
        try:
            (unfinished / _TENSORS).write_bytes(tensors)
            (unfinished / _RECORD).write_text(text)
            with self._locked():
                self._make_room(len(tensors) + len(text))
                unfinished.rename(entry)
        except OSError:
            shutil.rmtree(unfinished, ignore_errors=True)
            if not entry.exists():  # else another process was faster; its entry is as good
                raise

    def _make_room(self, needed: int) -> None:
        """Remove entries, longest unused first, until `needed` bytes fit under the limit."""
        entries = []
        for entry in self.directory.glob("*/*"):
            if entry.is_symlink() or entry.parent.is_symlink() or not entry.is_dir():
                continue  # not petra's: it makes no links
            with contextlib.suppress(FileNotFoundError):
                used_at = entry.stat().st_mtime
                if entry.name.startswith(_UNFINISHED) and time.time() - used_at < _ABANDONED_S:
                    continue
                entries.append((used_at, sum(f.stat().st_size for f in entry.iterdir()), entry))
        total = needed + sum(size for _, size, _ in entries)
        for _, size, entry in sorted(entries):
            if total <= self.limit_bytes:
                return
            with contextlib.suppress(FileNotFoundError):
                self._remove(entry)
            total -= size

    def _remove(self, entry: Path) -> None:
        """Take an entry away in one step, then delete it.

        A process reading it keeps the files it has opened.
        """
        grave = entry.rename(entry.with_name(_UNFINISHED + secrets.token_hex(8)))
        shutil.rmtree(grave, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.directory / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content).hexdigest()
