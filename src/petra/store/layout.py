"""What lies in a study's directory: plain files and directories of its own, nothing that leads out."""

from __future__ import annotations

import stat
from pathlib import Path

from petra.core.errors import ArtifactError, StoreError
from petra.core.text import printable

FILES = ("study.db", "study.db-wal", "study.db-shm", "study.db-journal", "study.lock", "report.html")
DIRECTORIES = ("artifacts", "cache", "data", "export", "logs", "runtimes")


def check_layout(directory: Path) -> None:
    """Refuse a study in which petra would read, write or delete through a link, or wait on a pipe.

    The directory itself may be a link, which its owner made. Raises StoreError.
    """
    for name in (*FILES, *DIRECTORIES):
        mode = _mode(directory / name)
        wanted = stat.S_ISREG if name in FILES else stat.S_ISDIR
        if mode and not wanted(mode):
            kind = "a link" if stat.S_ISLNK(mode) else "neither file nor directory"
            if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                kind = "a directory" if stat.S_ISDIR(mode) else "a file"
            raise StoreError(
                f"{directory / name}: this is {kind}, not what petra makes there",
                hint="remove it; to keep a study elsewhere, make its whole directory a link",
            )


def own_file(directory: Path, relative: str) -> Path:
    """The plain file at `relative` below `directory`.

    Raises ArtifactError when it is missing, when any step on the way to it is a link, and when it
    is no file; nothing is opened.
    """
    path, parts = directory / relative, Path(relative).parts
    for i, part in enumerate(parts, 1):
        step = directory.joinpath(*parts[:i])
        if part in ("..", "/") or stat.S_ISLNK(_mode(step)):
            raise ArtifactError(
                f"{printable(path)}: {printable(step)} leads out of the study",
                hint="only files of the study itself are used; was it changed?",
            )
    if not parts or not stat.S_ISREG(_mode(path)):
        raise ArtifactError(f"{printable(path)}: there is no such file", hint="was it deleted?")
    return path


def _mode(path: Path) -> int:
    """The mode of what lies there itself, 0 when there is nothing or it cannot be seen."""
    try:
        return path.lstat().st_mode
    except (OSError, ValueError):
        return 0
