"""What lies in a study's directory: plain files and directories of its own, nothing that leads
out.
"""

from __future__ import annotations

import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from petra.core.errors import ArtifactError, StoreError
from petra.core.text import printable

DATABASE_FILE = "study.db"
LOCK_FILE = "study.lock"
REPORT_FILE = "report.html"
ACTIVITY_FILE = "activity.json"
FILES = (
    *(f"{DATABASE_FILE}{end}" for end in ("", "-wal", "-shm", "-journal")),
    LOCK_FILE,
    REPORT_FILE,
    ACTIVITY_FILE,
)
DIRECTORIES = ("artifacts", "cache", "data", "export", "logs", "profiles", "runtimes")


@dataclass(frozen=True)
class StudyPaths:
    """Every path in the directory of a study, `root`. Nothing is looked at or made."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / DATABASE_FILE

    @property
    def lock(self) -> Path:
        return self.root / LOCK_FILE

    @property
    def report(self) -> Path:
        return self.root / REPORT_FILE

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    def artifact(self, number: int) -> Path:
        """The directory with the files of trial `number`."""
        return self.artifacts / f"{number:05d}"

    def relative(self, path: Path) -> str:
        """How a trial names one of the study's files."""
        return str(path.relative_to(self.root))

    @property
    def data(self) -> Path:
        """Splits as arrays: a directory for the inputs of each, its targets beside it."""
        return self.root / "data"

    def predictions(self, split: str, number: int) -> Path:
        """What trial `number` predicts for the items of a split."""
        return self.data / f"{split}.predictions-{number}.npz"

    def cache(self, mark: str) -> Path:
        """Prefixes of pipelines on the model and data of this `mark`."""
        return self.root / "cache" / mark[:16]

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def log(self, slot: int) -> Path:
        """What the worker process in this slot printed."""
        return self.logs / f"worker-{slot}.log"

    def export(self, pick: str) -> Path:
        """The study's own bundle of a member of the front."""
        return self.root / "export" / pick

    def profile(self, number: int) -> Path:
        """Where the time of trial `number` goes, as it was profiled last."""
        return self.root / "profiles" / f"{number:05d}.json"

    def on_runtimes(self, number: int) -> Path:
        """Where a comparison of runtimes puts the files of trial `number`, a directory for each."""
        return self.root / "runtimes" / f"{number:05d}"


def make_directory(directory: Path) -> None:
    """Make the directory of a study if need be. Raises StoreError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{directory}: cannot be made: {error.strerror}",
            hint="choose a directory you may write to",
        ) from error


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


def check_writable(directory: Path) -> None:
    """Refuse a directory that cannot become a study's, before anything is spent on it.

    Leaves nothing.

    Raises StoreError for what is not a directory, lies below a file, cannot be written or cannot
    even be named.
    """
    text = printable(str(directory))
    shown = text if len(text) < 200 else f"{text[:200]} ..."
    if text != str(directory):
        raise StoreError(
            f"workdir: got '{shown}'", hint="give a path of characters that can be seen"
        )
    place = directory
    try:
        while not (mode := _existing(place)) and place != place.parent:
            place = place.parent
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StoreError(f"workdir: {shown}: cannot be made: {reason}", hint=_CHOOSE) from None
    if not stat.S_ISDIR(mode):
        reason = f"{place} is not a directory"
        raise StoreError(f"workdir: {shown}: cannot be made: {reason}", hint=_CHOOSE)
    try:
        Path(tempfile.mkdtemp(dir=place, prefix=".petra-")).rmdir()  # permissions alone do not tell
    except OSError as error:
        reason = f"{place}: {error.strerror}"
        raise StoreError(f"workdir: {shown}: cannot write here: {reason}", hint=_CHOOSE) from None


def _existing(path: Path) -> int:
    """The mode of what a path leads to, 0 when there is nothing."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise
        return 0


_CHOOSE = "choose a directory you may write to"


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
