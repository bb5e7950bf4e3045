"""What stands beside the tensors of modules: which modules they are, where they go, and which model
they were made for. JSON, of which nothing is executed: kinds are looked up in a table, paths in the
model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from petra.core.errors import ArtifactError
from petra.core.pipeline import Value
from petra.core.text import json_text, printable, shown
from petra.store.checked import from_json, mapping, sequence, text, whole

RECORD_FILE, TENSORS_FILE = "modules.json", "modules.safetensors"
FORMAT, VERSION = "petra modules", 1
MAX_RECORD = 1 << 23  # bytes
DAMAGED = "it is damaged, or was not written by petra"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModuleEntry:
    """One inserted module: where it is, what kind it is of, and what its constructor is told."""

    path: str
    kind: str
    settings: Mapping[str, Value]


@dataclass(frozen=True)
class ModulesRecord:
    """All about a file of modules but its tensors.

    `structure` is the digest of the model that they are for, `weights` that of the weights which
    stayed as they were. `trained` are weights of that model itself that were trained, its head's:
    they lie in the file beside the modules, which have `parameters` of their own. `tensors` is the
    SHA-256 of the file of tensors.
    """

    structure: str
    weights: str
    modules: tuple[ModuleEntry, ...]
    trained: tuple[str, ...]
    parameters: int
    head_parameters: int
    tensors: str

    def to_json(self) -> str:
        """As `read_record` reads it."""
        data = {
            "format": FORMAT,
            "version": VERSION,
            "base": {"structure": self.structure, "weights": self.weights},
            "modules": [
                {"path": m.path, "kind": m.kind, "settings": dict(m.settings)} for m in self.modules
            ],
            "trained": list(self.trained),
            "parameters": {"modules": self.parameters, "head": self.head_parameters},
            "tensors": {"file": TENSORS_FILE, "sha256": self.tensors},
        }
        return json_text(data) + "\n"


def read_record(path: Path, content: bytes) -> ModulesRecord:
    """The record in the `content` of the file at `path`. Raises ArtifactError for anything that
    `ModulesRecord.to_json` does not write.
    """
    try:
        data = mapping(from_json(content.decode("utf-8"), "it"), "it")
        if data.get("format") != FORMAT:
            raise ValueError(f"no record of modules: its format is {shown(data.get('format'))}")
        if data.get("version") != VERSION:
            raise ValueError(f"its version is {shown(data.get('version'))}, and {VERSION} is known")
        return _record(data)
    except ValueError as error:
        said = printable(str(error))[:300]
        raise ArtifactError(f"{path}: {said}", hint=DAMAGED) from None


def _record(data: Mapping[str, object]) -> ModulesRecord:
    known = {"format", "version", "base", "modules", "trained", "parameters", "tensors"}
    _only(data, known, "it")
    base, counts = mapping(data["base"], "base"), mapping(data["parameters"], "parameters")
    tensors = mapping(data["tensors"], "tensors")
    _only(base, {"structure", "weights"}, "base")
    _only(counts, {"modules", "head"}, "parameters")
    _only(tensors, {"file", "sha256"}, "tensors")
    if tensors["file"] != TENSORS_FILE:
        raise ValueError(f"tensors.file is {shown(tensors['file'])}, not {TENSORS_FILE!r}")
    listed = enumerate(sequence(data["modules"], "modules"))
    modules = tuple(_entry(entry, i) for i, entry in listed)
    if len({(m.path, m.kind) for m in modules}) < len(modules):
        raise ValueError("modules: one is given twice")
    return ModulesRecord(
        structure=_digest(base["structure"], "base.structure"),
        weights=_digest(base["weights"], "base.weights"),
        modules=modules,
        trained=_names(data["trained"], "trained"),
        parameters=whole(counts["modules"], "parameters.modules"),
        head_parameters=whole(counts["head"], "parameters.head"),
        tensors=_digest(tensors["sha256"], "tensors.sha256"),
    )


def _entry(entry: object, index: int) -> ModuleEntry:
    where = f"modules[{index}]"
    data = mapping(entry, where)
    _only(data, {"path", "kind", "settings"}, where)
    settings = mapping(data["settings"], f"{where}.settings")
    for name, value in settings.items():
        if not isinstance(value, bool | int | float | str):
            raise ValueError(f"{where}.settings.{printable(name)[:80]} is {shown(value)}")
    return ModuleEntry(
        text(data["path"], f"{where}.path"), text(data["kind"], f"{where}.kind"), settings
    )


def _only(data: Mapping[str, object], known: set[str], where: str) -> None:
    if data.keys() != known:
        odd = sorted(data.keys() ^ known)
        raise ValueError(f"{where} lacks, or has besides, {', '.join(map(shown, odd[:3]))}")


def _names(value: object, where: str) -> tuple[str, ...]:
    names = tuple(text(name, where) for name in sequence(value, where))
    if len(set(names)) < len(names):
        raise ValueError(f"{where}: a name is given twice")
    return names


def _digest(value: object, where: str) -> str:
    digest = text(value, where)
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"{where} is {shown(digest)}, not a digest")
    return digest
