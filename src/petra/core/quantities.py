"""Durations and sizes as people write them."""

from __future__ import annotations

import re

from petra.core.text import shown

_DURATION = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*(s|sec|m|min|h|hours?)?\s*$", re.IGNORECASE)
_BYTES = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*(b|kb|mb|gb|kib|mib|gib)?\s*$", re.IGNORECASE)
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hour": 3600, "hours": 3600}
_BYTE_UNITS = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}


def parse_duration(value: object) -> float:
    """'90', '90 s', '30 min', '2 h' or a number of seconds -> seconds. ValueError for all else."""
    if isinstance(value, str):
        match = _DURATION.match(value) if len(value) <= _MAX_QUANTITY else None
        if match is None:
            raise ValueError(f"cannot read {shown(value)} as a duration; {_DURATION_HINT}")
        value = float(match[1]) * _SECONDS[(match[2] or "s").lower()]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"cannot read {shown(value)} as a duration; {_DURATION_HINT}")
    if not abs(value) <= _LONGEST_S:
        raise ValueError(
            f"{shown(value)} seconds are no duration; at most {_LONGEST_S:g} are allowed"
        )
    return value


def parse_bytes(value: object) -> int:
    """'2 GiB', '300 kB' or a number of bytes -> bytes. ValueError for all else."""
    if isinstance(value, str):
        match = _BYTES.match(value) if len(value) <= _MAX_QUANTITY else None
        if match is None:
            raise ValueError(f"cannot read {shown(value)} as a size; {_BYTES_HINT}")
        value = float(match[1]) * _BYTE_UNITS[(match[2] or "b").lower()]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"cannot read {shown(value)} as a size; {_BYTES_HINT}")
    if not abs(value) <= _MOST_BYTES:
        raise ValueError(f"{shown(value)} is no size; at most {_MOST_BYTES} bytes are allowed")
    return int(value)


_MAX_QUANTITY = 100  # characters
_LONGEST_S, _MOST_BYTES = 1e9, 2**60
_DURATION_HINT = "write seconds or for example '30 min', '2 h'"
_BYTES_HINT = "write bytes or for example '500 MB', '2 GiB'"
