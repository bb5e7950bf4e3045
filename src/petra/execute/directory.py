"""A study's directory that fails: the disk's fault and not a candidate's."""

from __future__ import annotations

import tempfile
from pathlib import Path

from petra.core.errors import StoreError


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
