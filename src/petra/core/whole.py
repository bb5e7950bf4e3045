"""Files and directories that are never seen half written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def copy_whole(source: Path, target: Path) -> Path:
    """Copy so that `target` is never seen half written. A file onto itself is left alone."""
    if target.exists() and target.samefile(source):
        return target
    with _replacing(target) as temporary:
        shutil.copyfile(source, temporary)
    return target


def write_whole(target: Path, content: str) -> None:
    """Write a text file so that it is never seen half written.

    A link at `target` is replaced, not followed.
    """
    with _replacing(target) as temporary:
        temporary.write_text(content, encoding="utf-8")


@contextmanager
def whole_directory(target: Path) -> Iterator[Path]:
    """A directory to be filled, which takes the place of `target` and of all that lies there when
    the block ends, and goes when it raises.

    A link at `target` is replaced, not followed. Raises OSError.
    """
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        new = temporary / "new"
        new.mkdir()
        yield new
        if not os.path.lexists(target):
            new.rename(target)
            return
        old = temporary / "old"
        target.rename(old)
        try:
            new.rename(target)
        except OSError:
            old.rename(target)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's files are for their owner alone
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
