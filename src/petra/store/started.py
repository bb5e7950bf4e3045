"""Which studies this user started on this machine: kept outside of them, where nobody else writes.

A study can come from anywhere, and its settings name functions to call. Only those that somebody
named on this machine are called without being asked about again. A record is a small file under
``$XDG_STATE_HOME/petra/started`` (default ``~/.local/state``), found by three things at once: the
study's own identity, its directory, and what would be called. A study that was copied, moved or
edited has no record.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path


def remember(identity: str, directory: Path, called: str) -> str:
    """Record that the study was started here to do what `called` says; '' or why that failed."""
    try:
        place = _place()
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        place.chmod(0o700)
        target = place / _name(identity, directory, called)
        handle, temporary = tempfile.mkstemp(dir=place, prefix=".new-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"directory": str(directory.resolve()), "called": called}, file)
        Path(temporary).replace(target)
    except (OSError, RuntimeError) as error:  # RuntimeError: no home directory
        return str(error)
    return ""


def remembered(identity: str, directory: Path, called: str) -> bool:
    """Whether `remember` was called with the same by this user."""
    try:
        place = _place()
        return _is_private(place) and (place / _name(identity, directory, called)).is_file()
    except (OSError, RuntimeError):
        return False


def known_elsewhere(identity: str, directory: Path) -> bool:
    """Whether this user started a study of that identity, but in another directory."""
    if not identity:
        return False
    try:
        place = _place()
        here = _name(identity, directory, "").split("-")[1]
        found = {f.name.split("-")[1] for f in place.glob(f"{_digest(identity)}-*-*.json")}
    except (OSError, RuntimeError):
        return False
    return bool(found - {here}) and here not in found


def _place() -> Path:
    given = os.environ.get("XDG_STATE_HOME", "")
    state = Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "state"
    return state / "petra" / "started"


def _is_private(place: Path) -> bool:
    """Whether nobody else could have put a record there."""
    found = place.lstat()
    mine = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
    return stat.S_ISDIR(found.st_mode) and mine and not found.st_mode & 0o022


def _name(identity: str, directory: Path, called: str) -> str:
    return f"{_digest(identity)}-{_digest(str(directory.resolve()))}-{_digest(called)}.json"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
