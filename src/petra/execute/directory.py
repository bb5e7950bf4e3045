"""What all candidates need of a study's directory, and its failures, which are no candidate's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from petra.core.errors import DataError, PetraError, StoreError
from petra.execute.builder import Caller
from petra.execute.judge import write_data


def make_directory(place: Path) -> None:
    """Make a directory unless it is there. Raises StoreError when it cannot be."""
    try:
        place.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{place}: cannot be made: {error.strerror}",
            hint="free space on the disk, or make the directory writable",
        ) from error


def check_writable(place: Path) -> None:
    """Raise StoreError when a directory cannot take a megabyte."""
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(1 << 20))
    except OSError as error:
        raise StoreError(
            f"{place}: cannot write here: {error.strerror}",
            hint=(
                "free space on the disk or make the directory writable, and continue; finished"
                " trials are safe"
            ),
        ) from error


def check_untouched(file: Path) -> None:
    """Raise StoreError when the untouched model's file is not there any more."""
    if not file.exists():
        raise StoreError(
            f"{file} is gone: no candidate can be compared with the untouched model",
            hint="put the file back and continue, or start a new study in another directory",
        )


class Splits:
    """The splits as files in `data`, for measuring. `check` raises when the disk is at fault."""

    def __init__(self, data: Path, check: Callable[[], None]) -> None:
        self._data, self._check = data, check
        self._unreadable: PetraError | None = None
        self._written: set[str] = set()

    def write(self, split: str, caller: Caller) -> None:
        """Write inputs and targets, once. Raises what reading them raises, every time."""
        if self._unreadable:
            raise self._unreadable
        if split in self._written:
            return
        try:
            caller.call(write_data, split, self._data)
        except PetraError as error:
            self._check()
            said = "" if isinstance(error, DataError) else f"{split} split: reading it failed: "
            self._unreadable = DataError(f"{said}{error.message}", hint=error.hint)
            raise self._unreadable from error
        self._written.add(split)
