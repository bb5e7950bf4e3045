"""Modules of a model written to files: what was inserted in it, and those of its own weights that
were trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from petra.core.errors import ConfigError
from petra.core.text import shown
from petra.core.whole import whole_directory
from petra.methods.adapt.files.base_view import (
    own_tensors,
    places,
    structure_digest,
    weights_digest,
)
from petra.methods.adapt.files.inserts import insert_of
from petra.methods.adapt.files.kinds import KINDS, Lines, kind_of
from petra.methods.adapt.files.record import (
    RECORD_FILE,
    TENSORS_FILE,
    ModuleEntry,
    ModulesRecord,
)
from petra.methods.adapt.files.tensors_file import written
from petra.model.layers.adapters import Holding


@dataclass(frozen=True)
class Stored:
    """What a file of modules holds: the modules, from inner to outer ones, and all tensors by the
    names under which they lie there.
    """

    modules: tuple[ModuleEntry, ...]
    inserts: Mapping[str, Tensor]
    trained: Mapping[str, Tensor]

    @property
    def tensors(self) -> dict[str, Tensor]:
        own = {trained_key(name): tensor for name, tensor in self.trained.items()}
        return {**self.inserts, **own}


def insert_key(entry: ModuleEntry, name: str) -> str:
    """What a tensor of an insert is called in a file."""
    return f"{entry.path}/{entry.kind}/{name}"


def trained_key(name: str) -> str:
    """What a weight of the model itself is called in a file."""
    return f"/{name}"


def stored(model: nn.Module) -> Stored:
    """What is to be kept of a model with modules in it, or of a frozen one with a trained head.
    Tensors are those of the model.

    Raises ConfigError where there is nothing to keep, and for modules that files do not hold.
    """
    entries: list[ModuleEntry] = []
    inserts: dict[str, Tensor] = {}
    met: dict[int, str] = {}
    lines = Lines()
    for place in reversed(list(places(model))):
        for holder in place.holders:
            if id(holder) in met:
                raise ConfigError(
                    f"layer {place.path!r}: what holds it holds {met[id(holder)]!r}, too",
                    hint="modules of layers that are registered under two names cannot be stored",
                )
            met[id(holder)] = place.path
            entry = _entry(place.path, holder, lines)
            entries.append(entry)
            insert = insert_of(holder)
            for name, tensor in insert.named_parameters() if insert else ():
                inserts[insert_key(entry, name)] = tensor
    trained = _trained(model)
    frozen = [p for p in own_tensors(model).values() if p.is_floating_point() and _is_frozen(p)]
    if not inserts and not (trained and frozen):
        raise ConfigError(
            "this model has no modules apart from its layers",
            hint="save them before they become part of the weights: the stage adapt with merge off",
        )
    return Stored(tuple(entries), inserts, trained)


def _is_frozen(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter) and not tensor.requires_grad


def _entry(path: str, holder: Holding, lines: Lines) -> ModuleEntry:
    kind = kind_of(holder)
    if kind is None:
        raise ConfigError(
            f"layer {path!r}: a {type(holder).__name__} is no module that files hold",
            hint=f"known are: {', '.join(KINDS)}",
        )
    return ModuleEntry(path, kind, KINDS[kind].said(holder, lines))


def _trained(model: nn.Module) -> dict[str, Tensor]:
    """The model's own weights that training may change, each once, and what is kept beside them
    (statistics of norms).
    """
    own = own_tensors(model)
    chosen = {id(t): name for name, t in reversed(own.items()) if t.requires_grad}
    names = set(chosen.values())
    modules = {name.rpartition(".")[0] for name in names}
    for name, tensor in own.items():
        if not isinstance(tensor, nn.Parameter) and name.rpartition(".")[0] in modules:
            names.add(name)
    return {name: tensor for name, tensor in own.items() if name in names}


def module_files(model: nn.Module) -> dict[str, bytes]:
    """The files of a model's modules, by name: tensors, and the record of what they are. Raises
    ConfigError as `stored` does.
    """
    found = stored(model)
    content = written(found.tensors)
    record = ModulesRecord(
        structure=structure_digest(model),
        weights=weights_digest(model, but=_names_of(model, found.trained)),
        modules=found.modules,
        trained=tuple(found.trained),
        parameters=sum(t.numel() for t in found.inserts.values()),
        head_parameters=sum(t.numel() for t in found.trained.values()),
        tensors=hashlib.sha256(content).hexdigest(),
    )
    return {TENSORS_FILE: content, RECORD_FILE: record.to_json().encode()}


def _names_of(model: nn.Module, trained: Mapping[str, Tensor]) -> set[str]:
    """All names of weights that have one among those trained."""
    wanted = {id(tensor) for tensor in trained.values()}
    return {name for name, tensor in own_tensors(model).items() if id(tensor) in wanted}


def write_files(target: Path, files: Mapping[str, bytes]) -> Path:
    """A directory with these files, all or none, in the place of one that has no others. Raises
    ConfigError for what else lies there, and where it cannot be written.
    """
    try:
        if target.is_dir() and not target.is_symlink():
            other = sorted(p.name for p in target.iterdir() if p.name not in files)
            if other:
                raise ConfigError(
                    f"{target}: holds {shown(other[0])}, which is not of modules",
                    hint="give a directory of its own, which is replaced as a whole",
                )
        elif target.exists() or target.is_symlink():
            raise ConfigError(f"{target}: this is no directory", hint="give a directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_directory(target) as place:
            for name, content in files.items():
                (place / name).write_bytes(content)
    except OSError as error:
        raise ConfigError(
            f"{target}: cannot be written: {error.strerror or error}", hint="choose another place"
        ) from error
    return target
