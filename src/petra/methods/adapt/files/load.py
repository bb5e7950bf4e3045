"""Modules read from files and put around the layers of a model, whoever wrote the files.

All that a file says is held to the model and to `KINDS` before anything of it is used, and no more
of it is read than these say it has.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from petra.core.errors import ArtifactError, ConfigError
from petra.core.text import shown
from petra.methods.adapt.files.base_view import (
    at,
    own_tensors,
    places,
    put,
    structure_digest,
    weights_digest,
)
from petra.methods.adapt.files.kinds import KINDS, Kind, Lines
from petra.methods.adapt.files.record import (
    DAMAGED,
    MAX_RECORD,
    RECORD_FILE,
    TENSORS_FILE,
    ModuleEntry,
    ModulesRecord,
    read_record,
)
from petra.methods.adapt.files.save import insert_key, trained_key
from petra.methods.adapt.files.tensors_file import (
    MAX_HEADER,
    TensorFacts,
    plain_file,
    read_expected,
)
from petra.model.attention.separate import separate_attention
from petra.model.copies.copying import copy_model
from petra.model.trainability import freeze

_MOST, _SLACK = 4, 1 << 18
"""Modules have at most so many times the elements of the model, and some more: those of full width
around all layers have about two.
"""


def read_modules(base: nn.Module, path: str | Path, *, check_weights: bool) -> nn.Module:
    """`petra.load_modules`."""
    directory = Path(path)
    file = directory / RECORD_FILE
    record = read_record(file, plain_file(file, MAX_RECORD))
    model = copy_model(base)
    _check_base(model, record, file, check_weights=check_weights)
    with _refusing(file):
        inserts = _expected_inserts(model, record)
        trained = _expected_weights(model, record)
        expected = {**inserts, **trained}
        if len(expected) < len(inserts) + len(trained):
            raise ValueError("a name stands for two tensors")
        _check_size(model, expected)
    tensors = _tensors(directory / TENSORS_FILE, record, expected)
    with _refusing(file):
        _check_counts(record, inserts, trained)
        return _put_in(model, record, tensors).eval()


def _check_size(model: nn.Module, expected: Mapping[str, TensorFacts]) -> None:
    asked = sum(math.prod(facts.shape) for facts in expected.values())
    held = sum(tensor.numel() for tensor in own_tensors(model).values())
    if asked > _MOST * held + _SLACK:
        raise ValueError(f"its modules have {asked} elements, far more than their model")


@contextmanager
def _refusing(file: Path) -> Iterator[None]:
    """Raise ArtifactError for what is found to be wrong with a file."""
    try:
        yield
    except ValueError as error:
        raise ArtifactError(f"{file}: {error}", hint=DAMAGED) from None


def _check_base(
    model: nn.Module, record: ModulesRecord, file: Path, *, check_weights: bool
) -> None:
    if any(place.holders for place in places(model)):
        raise ConfigError(
            "load_modules: the model holds modules already", hint="give the model without them"
        )
    if structure_digest(model) != record.structure:
        separate_attention(model)  # as the stage does with torch's own
    if structure_digest(model) != record.structure:
        raise ArtifactError(
            f"{file}: its modules were made for a model of another structure",
            hint="give the model that was adapted: of the same classes, names, shapes and types of"
            " weights (petra works in float32), after the stages that came before",
        )
    if check_weights and weights_digest(model, but=_names_of(model, record)) != record.weights:
        raise ArtifactError(
            f"{file}: its modules were made for a model with other weights",
            hint="give the weights that were adapted; check_weights=False takes them as they are",
        )


def _names_of(model: nn.Module, record: ModulesRecord) -> frozenset[str]:
    """All names of the weights that were trained."""
    own = own_tensors(model)
    chosen = {id(own[name]) for name in record.trained if name in own}
    return frozenset(name for name, tensor in own.items() if id(tensor) in chosen)


def _expected_inserts(model: nn.Module, record: ModulesRecord) -> dict[str, TensorFacts]:
    """The tensors of all modules. Raises ValueError for a module that the model has no place
    for.
    """
    expected: dict[str, TensorFacts] = {}
    ends: dict[str, list[object]] = {"tap": [], "parallel": []}
    for entry in record.modules:
        kind = _kind(entry)
        try:
            layer = at(model, entry.path)
        except KeyError:
            raise ValueError(f"the model has no layer {shown(entry.path)}") from None
        if reason := kind.unfit(layer, entry.settings):
            raise ValueError(f"layer {shown(entry.path)} is {reason}: not for this {entry.kind}")
        for name, shape in kind.shapes(layer, entry.settings).items():
            expected[insert_key(entry, name)] = TensorFacts(shape, None)
        if entry.kind in ends:
            ends[entry.kind].append(entry.settings["line"])
    if sorted(map(str, ends["tap"])) != sorted(map(str, ends["parallel"])):
        raise ValueError("its parallel adapters and the layers that they read from do not match")
    if len(set(ends["tap"])) < len(ends["tap"]):
        raise ValueError("two of its parallel adapters read from one layer")
    return expected


def _kind(entry: ModuleEntry) -> Kind:
    where = f"the module at {shown(entry.path)}"
    kind = KINDS.get(entry.kind)
    if kind is None:
        raise ValueError(f"{where} is of the unknown kind {shown(entry.kind)}")
    if odd := sorted(entry.settings.keys() ^ kind.settings.keys()):
        raise ValueError(f"{where} lacks the setting {shown(odd[0])}, or may not have it")
    for name, domain in kind.settings.items():
        if not domain.contains(entry.settings[name]):
            said = shown(entry.settings[name])
            raise ValueError(f"{where}: {name} is {said}, allowed: {domain}")
    return kind


def _expected_weights(model: nn.Module, record: ModulesRecord) -> dict[str, TensorFacts]:
    """The model's own weights that were trained. Raises ValueError for one that it has not."""
    own = own_tensors(model)
    if lacking := [name for name in record.trained if name not in own]:
        raise ValueError(f"the model has no weight {shown(lacking[0])}")
    return {trained_key(name): TensorFacts.of(own[name]) for name in record.trained}


def _tensors(
    path: Path, record: ModulesRecord, expected: Mapping[str, TensorFacts]
) -> dict[str, Tensor]:
    size = sum(facts.most_bytes for facts in expected.values())
    content = plain_file(path, size + MAX_HEADER + 8)
    tensors = read_expected(path, content, expected)
    if hashlib.sha256(content).hexdigest() != record.tensors:
        raise ArtifactError(
            f"{path}: not the file that {RECORD_FILE} is about: it records another SHA-256",
            hint=DAMAGED,
        )
    return tensors


def _check_counts(
    record: ModulesRecord, inserts: Mapping[str, TensorFacts], trained: Mapping[str, TensorFacts]
) -> None:
    found = tuple(sum(math.prod(f.shape) for f in part.values()) for part in (inserts, trained))
    if found != (record.parameters, record.head_parameters):
        said = f"{record.parameters} of modules and {record.head_parameters} of the head"
        raise ValueError(f"it says {said}, and has {found[0]} and {found[1]} parameters")


@torch.no_grad()
def _put_in(model: nn.Module, record: ModulesRecord, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The model with its modules, which and the trained weights alone may be trained further."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    own = own_tensors(model)
    freeze(model)
    for name in record.trained:
        own[name].copy_(tensors[trained_key(name)])
        own[name].requires_grad_(isinstance(own[name], nn.Parameter))
    lines = Lines()
    with torch.random.fork_rng([]):  # which constructors draw from, in vain
        for entry in record.modules:
            layer = at(model, entry.path)
            holder = KINDS[entry.kind].hold(layer, entry.settings, lines)
            insert = holder._modules.get("insert")
            for name, _ in list(insert.named_parameters()) if insert else ():
                owner, _, leaf = name.rpartition(".")
                value = tensors[insert_key(entry, name)].clone().to(device)
                assert insert is not None
                insert.get_submodule(owner)._parameters[leaf] = nn.Parameter(value)
            model = put(model, entry.path, holder)
    return model
