"""A model with modules in it, seen as the model that they were put in: the same paths and weights,
whatever holds its layers now.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from petra.model.description.state_hash import tensor_bytes
from petra.model.layers.adapters import Holding


@dataclass(frozen=True)
class Place:
    """A module of the model as it was, at its `path` there, and what holds it, innermost first."""

    path: str
    module: nn.Module
    holders: tuple[Holding, ...]


def places(model: nn.Module, path: str = "") -> Iterator[Place]:
    """Every place of a model, a module in several of them in each."""
    holders: list[Holding] = []
    while isinstance(model, Holding):
        holders.insert(0, model)
        model = model.layer
    yield Place(path, model, tuple(holders))
    for name, child in model._modules.items():
        if child is not None:
            yield from places(child, f"{path}.{name}" if path else name)


def bare(module: nn.Module) -> nn.Module:
    """The layer of the model inside all that holds it."""
    while isinstance(module, Holding):
        module = module.layer
    return module


def put(model: nn.Module, path: str, module: nn.Module) -> nn.Module:
    """`model` with `module` at a path of the model as it was. KeyError where there is none."""
    if not path:
        return module
    *parents, name = path.split(".")
    owner = bare(model)
    for parent in parents:
        owner = _child(owner, parent, path)
    _child(owner, name, path)
    owner._modules[name] = module
    return model


def at(model: nn.Module, path: str) -> nn.Module:
    """What lies at a path of the model as it was, with all that holds it. KeyError where there is
    nothing.
    """
    *parents, name = path.split(".")
    owner = bare(model)
    for parent in parents:
        owner = _child(owner, parent, path)
    found = owner._modules.get(name) if path else model
    if found is None:
        raise KeyError(path)
    return found


def _child(owner: nn.Module, name: str, path: str) -> nn.Module:
    found = owner._modules.get(name)
    if found is None:
        raise KeyError(path)
    return bare(found)


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers of the model as it was, by their names there; one that has
    several names by each.
    """
    found: dict[str, Tensor] = {}
    for place in places(model):
        kept = {
            name: buffer
            for name, buffer in place.module._buffers.items()
            if name not in place.module._non_persistent_buffers_set
        }
        for name, tensor in (*place.module._parameters.items(), *kept.items()):
            if tensor is not None:
                found[f"{place.path}.{name}" if place.path else name] = tensor
    return found


def structure_digest(model: nn.Module) -> str:
    """64 hexadecimal digits, equal for models that are alike but for modules put in and for the
    values of weights: paths, names of classes, names, shapes and types of weights.
    """
    digest = hashlib.sha256()
    for place in places(model):
        digest.update(json.dumps([place.path, type(place.module).__qualname__]).encode())
    for name, tensor in own_tensors(model).items():
        digest.update(json.dumps([name, list(tensor.shape), str(tensor.dtype)]).encode())
    return digest.hexdigest()


def weights_digest(model: nn.Module, *, but: Collection[str]) -> str:
    """64 hexadecimal digits of all bits of the model's own weights, but of those named. Reads them
    once, about a gigabyte a second.
    """
    digest = hashlib.sha256()
    for name, tensor in own_tensors(model).items():
        if name not in but:
            digest.update(name.encode())
            for part in tensor_bytes(tensor):
                digest.update(part)
    return digest.hexdigest()
