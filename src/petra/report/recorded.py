"""A bundle's own record, read back: which files it is about, and whether they are the same."""

from __future__ import annotations

import os
import re
from pathlib import Path

from petra.core.digest import sha256
from petra.core.errors import ArtifactError
from petra.core.text import printable
from petra.store.checked import from_json, mapping, sequence, text
from petra.store.layout import own_file

PIPELINE_FILE, METRICS_FILE, PARITY_FILE = "pipeline.yaml", "metrics.json", "parity.json"
CARD_FILE = "MODEL_CARD.md"

_MAX_RECORD, _MAX_FILES = 1 << 20, 100


def companion(model_file: Path, name: str) -> Path | None:
    """The file `name` of the bundle that `model_file` belongs to; None when there is none."""
    for candidate in (
        model_file.with_name(f"{model_file.stem}.{name}"),
        model_file.with_name(name),
    ):
        if os.path.lexists(candidate):
            return candidate
    return None


def recorded_files(metrics: Path) -> dict[str, str]:
    """The files that a bundle's ``metrics.json`` is about: name -> SHA-256.

    Raises ArtifactError when it is no such file, and when it names anything but files beside it.
    """
    try:
        own_file(metrics.parent, metrics.name)
        if metrics.stat().st_size > _MAX_RECORD:
            raise ValueError(f"it has more than {_MAX_RECORD} bytes")
        data = mapping(from_json(metrics.read_text(encoding="utf-8"), "it"), "it")
        listed = [mapping(item, "files") for item in sequence(data.get("files"), "files")]
        found = {_file_name(item.get("name")): _digest(item.get("sha256")) for item in listed}
        if not 0 < len(found) == len(listed) <= _MAX_FILES:
            raise ValueError("files are none, too many, or named twice")
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{metrics}: cannot be read: {error}", hint="export the model again"
        ) from None
    return found


def check_recorded(metrics: Path) -> dict[str, str]:
    """`recorded_files`, all of which are there and are those that were measured.

    Raises ArtifactError for one that is missing, a link or another file; reads no other files.
    """
    recorded = recorded_files(metrics)
    for name, digest in recorded.items():
        place = metrics.parent / name
        if not os.path.lexists(place):
            raise ArtifactError(
                f"{place}: the bundle's file is missing", hint="copy the whole bundle"
            )
        if sha256(own_file(metrics.parent, name)) != digest:
            raise ArtifactError(
                f"{place}: not the file that was measured: {metrics.name} records another SHA-256",
                hint="it is damaged or was changed; export it again",
            )
    return recorded


def _file_name(value: object) -> str:
    name = text(value, "a file's name")
    if len(Path(name).parts) != 1 or name in (".", "..") or name != printable(name):
        raise ValueError(f"{printable(name)[:80]!r} is not the name of a file beside it")
    return name


def _digest(value: object) -> str:
    digest = text(value, "sha256")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError("a sha256 is not one")
    return digest
