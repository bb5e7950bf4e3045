"""Text files, and fields of text as numbers: what is wrong is named by its line and field."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from petra.core.errors import ConfigError, DataError
from petra.core.text import shown

MISSING = frozenset({"", "?", "nan", "na", "n/a", "null", "none"})
"""What stands for a missing number, in any case."""

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_MOST_TIMES = 200  # as large as its packed form a text may be; of data it is 3 to 20 times
_NO_BOMB = 2**26  # bytes, up to which that does not matter


def read_bytes(path: str | Path) -> bytes:
    """The content of a file, unpacked where its name ends in .gz. Raises DataError, also for one
    that unpacks to far more than data does."""
    file = Path(path)
    try:
        return _unpacked(file) if file.suffix == ".gz" else file.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{file}: no such file", hint="a path that exists") from None
    except IsADirectoryError:
        raise DataError(f"{file} is a folder", hint="name one file in it") from None
    except MemoryError:
        raise DataError(
            f"{file}: larger than the memory", hint="give it in parts, as a PyTorch Dataset"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: it cannot be read: {error}", hint="is the file whole?") from error


def _unpacked(file: Path) -> bytes:
    most = max(_NO_BOMB, _MOST_TIMES * file.stat().st_size)
    with gzip.open(file) as packed:
        content = packed.read(most + 1)
    if len(content) > most:
        raise DataError(
            f"{file} unpacks to more than {_MOST_TIMES} times its size",
            hint="if that is what it holds, unpack it and give the unpacked file",
        )
    return content


def read_text(path: str | Path, *, encoding: str = "utf-8") -> str:
    """The text of a file, less a byte order mark. Raises DataError, naming the line, for bytes that
    the encoding does not have, and for an empty file."""
    raw = read_bytes(path)
    try:
        text = raw.decode(encoding).removeprefix("\ufeff")
    except LookupError as error:
        raise ConfigError(
            f"encoding: {encoding!r} is none", hint="for example utf-8, cp1252, utf-16"
        ) from error
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        hint = "say in which encoding the text is: encoding='cp1252'"
        if raw.startswith(_UTF_16):
            hint = "it begins like UTF-16: encoding='utf-16'"
        raise DataError(
            f"{path}: line {line}: byte 0x{raw[error.start]:02x} is no {encoding}", hint=hint
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}: line {line}: a zero byte", hint="text was expected")
    if not text.strip():
        raise DataError(f"{path} is empty", hint="at least one line of data was expected")
    return text


def as_numbers(fields: Sequence[str], place: Callable[[int], str]) -> np.ndarray:
    """Fields as float32 (n,), missing ones (`MISSING`) as NaN.

    `place` names a field by its number in messages. Raises DataError for text that is no number
    and for what float32 cannot hold.
    """
    try:
        if any("_" in field for field in fields):  # which Python would overlook
            raise ValueError
        values = np.array([float(field) for field in fields], dtype=np.float64)
    except ValueError:
        values = np.array([_number(field, place, i) for i, field in enumerate(fields)])
    return single(values, place)


def _number(field: str, place: Callable[[int], str], i: int) -> float:
    try:
        if "_" in field:
            raise ValueError
        return np.nan if field.strip().lower() in MISSING else float(field)
    except ValueError:
        raise DataError(
            f"{place(i)}: {shown(field, 40)} is no number",
            hint="a number with a decimal point, or nothing, ? or NaN where it is missing",
        ) from None


def single(values: np.ndarray, place: Callable[[int], str]) -> np.ndarray:
    """float64 (n,) as float32. Raises DataError for infinity and for what becomes infinite."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        found = values.astype(np.float32)
    beyond = np.flatnonzero(np.isinf(found))
    if len(beyond):
        raise DataError(
            f"{place(int(beyond[0]))}: {values[beyond[0]]:g} is beyond what float32 holds",
            hint="at most 3.4e38; leave the field empty if the number is missing",
        )
    return found
