"""Values read back from a file, held to what petra writes there; whatever else is a ValueError. And
JSON as it is written, so that it reads back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from petra.core.errors import StoreError
from petra.core.measurement import LARGEST
from petra.core.text import printable

DAMAGE_HINT = "the database was changed by something other than petra; restore it from a copy"
MAX_TEXT = 1 << 24  # characters of one value
_MAX_DEPTH = 64  # of nested JSON
_MAX_INTEGER = 2**63 - 1
_BROKEN_JSON = "not the JSON that petra writes"


def text(value: object, name: str) -> str:
    """A string of bounded length."""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"{name} is {_shown(value)}, not text")
    return value


def whole(value: object, name: str, *, negative: bool = False) -> int:
    """An integer of 64 bits, not below 0 unless `negative`."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _MAX_INTEGER:
        raise ValueError(f"{name} is {_shown(value)}, not a whole number")
    if value < 0 and not negative:
        raise ValueError(f"{name} is {value}, which is negative")
    return value


def number(value: object, name: str, *, negative: bool = True) -> float:
    """A finite number of a size that can be computed with, not below 0 unless `negative`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {_shown(value)}, not a number")
    if not abs(value) <= LARGEST:
        raise ValueError(f"{name} is {_shown(value)}: numbers are finite and at most {LARGEST:g}")
    if value < 0 and not negative:
        raise ValueError(f"{name} is {value}, which is negative")
    return value


def relative_path(value: object, name: str) -> str:
    """'' or a path that stays below the directory it is relative to, as far as its text tells."""
    path = text(value, name)
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or path != printable(path) or len(path) > 4096:
        raise ValueError(f"{name} is {_shown(value)}, not a path inside the study")
    return path


def from_json(value: object, name: str) -> Any:
    """JSON data: bounded in depth, without NaN, infinities, huge integers or keys given twice."""
    try:
        data = json.loads(text(value, name), parse_constant=_refuse, object_pairs_hook=_distinct)
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{name} is {_BROKEN_JSON}: {error}") from None
    bounded(data, name)
    return data


def bounded(data: object, name: str) -> None:
    """Refuse data nested deeper than 64, and numbers that no computation bears."""
    level: Sequence[object] = [data]
    for _ in range(_MAX_DEPTH):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
            elif isinstance(item, float) and not math.isfinite(item):
                raise ValueError(f"{name} holds {item}")
            elif isinstance(item, int) and abs(item) > _MAX_INTEGER:
                raise ValueError(f"{name} holds an integer of more than 64 bits")
        if not inner:
            return
        level = inner
    raise ValueError(f"{name} is nested too deeply")


def mapping(value: object, name: str) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {_shown(value)}, not a mapping")
    return value


def sequence(value: object, name: str) -> list[Any]:
    """A JSON array."""
    if not isinstance(value, list):
        raise ValueError(f"{name} is {_shown(value)}, not a list")
    return value


def _refuse(constant: str) -> float:
    raise ValueError(f"it holds {constant}")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    return found


def to_json(value: object, *, where: str) -> str:
    """JSON text that `json.loads` turns back into `value`; refuses what JSON would change or cannot
    say.
    """
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
        same = json.loads(text) == value
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"{where} cannot be stored: {error}", hint=_JSON_HINT) from error
    if not same:
        raise StoreError(f"{where} would not read back as it is", hint=_JSON_HINT)
    return text


_JSON_HINT = "allowed: None, bools, ints, finite floats, strings, lists, dicts with string keys"


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) > _MAX_INTEGER:
        return "an integer of more than 64 bits"
    shown = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return printable(shown if len(shown) < 80 else f"{shown[:76]} ...")
