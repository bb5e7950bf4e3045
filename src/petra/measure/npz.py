"""An .npz file from anywhere, read within bounds: nothing is unpickled, and no more is unpacked
than its headers announce, which is looked at first.
"""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import numpy as np

from petra.core.errors import ArtifactError
from petra.core.text import printable
from petra.measure.given_inputs import announced
from petra.measure.random_inputs import LIMIT_BYTES
from petra.runtimes.base import Arrays, error_line

_MOST_ARRAYS = 1000


def read_bounded(path: Path, *, most_bytes: int = LIMIT_BYTES) -> Arrays:
    """All arrays of a file by name, at most `most_bytes` of them, and of the file itself.

    Raises ArtifactError for what is no plain file, for objects, names given twice, and more than
    that.
    """
    if not stat.S_ISREG(os.lstat(path).st_mode if os.path.lexists(path) else 0):
        raise ArtifactError(f"{printable(path)}: there is no such file", hint="was it deleted?")
    try:
        if path.stat().st_size > 2 * most_bytes:
            raise ValueError(f"it has more than {2 * most_bytes} bytes")
        with zipfile.ZipFile(path) as archive:
            return _arrays(archive, most_bytes)
    except Exception as error:
        raise ArtifactError(
            f"{printable(path)}: cannot be read as an .npz file: {printable(error_line(error))}",
            hint="it is damaged, or not as petra writes it",
        ) from error


def _arrays(archive: zipfile.ZipFile, most_bytes: int) -> Arrays:
    members = archive.infolist()
    if len({member.filename for member in members}) != len(members) or len(members) > _MOST_ARRAYS:
        raise ValueError("too many arrays, or one twice")
    needed = 0
    for member in members:
        shape, dtype = announced(archive, member)
        size = dtype.itemsize
        for axis in shape:
            size *= axis
        needed += size
        if dtype.hasobject or not member.filename.endswith(".npy"):
            raise ValueError("it holds Python objects, which are never unpickled")
        if needed > most_bytes:
            raise ValueError(f"more than {most_bytes} bytes of arrays")
    found = {}
    for member in members:
        with archive.open(member) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            if file.read(1):
                raise ValueError("there is more in a member than its array")
        found[member.filename.removesuffix(".npy")] = array
    return found
