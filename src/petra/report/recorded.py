"""A bundle's own record, read back: which files it is about, and whether they are the same.

``metrics.json`` names the model's files; ``SHA256SUMS``, which ``sha256sum -c`` reads, all that
were exported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from petra.core.digest import sha256
from petra.core.errors import ArtifactError
from petra.core.text import printable
from petra.store.checked import from_json, mapping, sequence, text
from petra.store.layout import own_file

PIPELINE_FILE, METRICS_FILE, PARITY_FILE = "pipeline.yaml", "metrics.json", "parity.json"
CARD_FILE, EVIDENCE_FILE, SUMS_FILE = "MODEL_CARD.md", "evidence.json", "SHA256SUMS"
SAMPLE_INPUTS, SAMPLE_OUTPUTS = "sample_inputs.npz", "sample_outputs.npz"

_MAX_RECORD, _MAX_FILES = 1 << 20, 100
MOST_EVIDENCE = 1 << 24  # bytes: there may be many classes
_SUM = re.compile(r"([0-9a-f]{64})  ([^\n]{1,4096})")


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
    data = read_record(metrics)
    try:
        listed = [mapping(item, "files") for item in sequence(data.get("files"), "files")]
        found = {_file_name(item.get("name")): _digest(item.get("sha256")) for item in listed}
        if not 0 < len(found) == len(listed) <= _MAX_FILES:
            raise ValueError("files are none, too many, or named twice")
    except ValueError as error:
        raise ArtifactError(
            f"{metrics}: cannot be read: {error}", hint="export the model again"
        ) from None
    return found


def read_record(file: Path, *, most_bytes: int = _MAX_RECORD) -> dict[str, Any]:
    """A bundle's JSON file. Raises ArtifactError for what is no such file, a link, or too large."""
    try:
        return mapping(from_json(_text_of(file, most_bytes), "it"), "it")
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{file}: cannot be read: {error}", hint="export the model again"
        ) from None


def _text_of(file: Path, most_bytes: int = _MAX_RECORD) -> str:
    own_file(file.parent, file.name)
    if file.stat().st_size > most_bytes:
        raise ValueError(f"it has more than {most_bytes} bytes")
    return file.read_text(encoding="utf-8")


def sums_text(directory: Path, files: Iterable[Path]) -> str:
    """What `SUMS_FILE` says of files below `directory`."""
    names = sorted(file.relative_to(directory).as_posix() for file in files)
    return "".join(f"{sha256(directory / name)}  {name}\n" for name in names)


def check_sums(sums: Path) -> tuple[str, ...]:
    """The files that a `SUMS_FILE` is about, all of which are there and are as they were exported.

    Raises ArtifactError for anything else, and for names that lead elsewhere.
    """
    try:
        lines = _text_of(sums).split("\n")
        matches = [_SUM.fullmatch(line) for line in lines[:-1]]
        found = {m[2]: m[1] for m in matches if m}
        if lines[-1] or not 0 < len(found) == len(matches) <= _MAX_FILES:
            raise ValueError("it is not a list of SHA-256 and names, one a line")
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{sums}: cannot be read: {error}", hint="export the model again"
        ) from None
    for name, digest in found.items():
        if name.startswith("/") or name != printable(name):
            raise ArtifactError(f"{sums}: names {printable(name)[:80]!r}", hint="it was changed")
        if sha256(own_file(sums.parent, name)) != digest:
            raise ArtifactError(
                f"{sums.parent / name}: not the file that was exported: {sums.name} records another"
                " SHA-256",
                hint="it is damaged or was changed; copy the bundle again, or export it again",
            )
    return tuple(found)


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
