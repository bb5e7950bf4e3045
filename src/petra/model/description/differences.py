"""A modified model as JSON and tensors: how it differs from the original, and how to make it again
from that.

Stages change a model in few ways: they shrink layers in place, replace layers by standard ones, or
change weights only. `describe` writes such changes down relative to the untouched original;
`rebuild` repeats them on a copy of it. Nothing is pickled, and rebuilding calls no constructor: a
new layer is an empty instance of its class with the recorded attributes set, so the classes need no
agreed signature. What cannot be said this way raises `NotDescribable`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from petra.core.errors import ArtifactError
from petra.model.copies.copying import copy_model
from petra.model.description.attribute_values import Comparison, NotDescribable, decode, encode
from petra.model.description.module_classes import blank, class_name, find_class, known_classes
from petra.model.description.tensor_owners import (
    KEPT,
    distinct_tensors,
    held_once,
    laid_out,
    tensor_facts,
    unchanged,
)
from petra.model.layers.adapters import Holding
from petra.model.tensor_slots import SLOTS, tensor_slots

__all__ = ["NotDescribable", "describe", "rebuild", "weights"]

_TREE = frozenset({"_parameters", "_buffers", "_modules"})
# Recurrent layers keep lists of their own weights, which follow assignments to the weights.
_DERIVED = frozenset({"_flat_weights", "_flat_weight_refs"})


def describe(
    model: nn.Module, original: nn.Module, brought: Collection[type[nn.Module]] = ()
) -> dict[str, Any]:
    """How `model` differs from `original` in everything but its numbers, as JSON data for
    `rebuild`.

    The numbers, and with them all shapes, are in `weights(model, description)`, but for those of
    tensors that have not changed. Sharing of modules and tensors, memory layout, ``requires_grad``
    and train/eval mode are kept. Raises NotDescribable naming the layer for: graph and script
    modules, classes that are neither in the original nor `brought` nor torch's nor petra's,
    attributes that differ and are not plain values, new hooks, tensor subclasses, and different
    tensors that overlap in memory.
    """
    pairing = _Pairing(known_classes(original, brought))
    pairing.visit("", model, original)
    comparison = Comparison(pairing.same_objects())
    changes = [_change(p, comparison) for p in pairing.pairs]
    tensors, aliases = distinct_tensors(model)
    pairs, once = [p for p in pairing.pairs if not p.new], held_once(original)
    kept = {key for p in pairs for key in unchanged(p.path, p.module, p.reference, once)}
    return {
        "modules": [c for c in changes if len(c) > 1],
        "module_aliases": pairing.aliases,
        "tensors": {key: tensor_facts(key, t, kept=key in kept) for key, t in tensors.items()},
        "tensor_aliases": aliases,
    }


def weights(model: nn.Module, description: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """All parameters and buffers, contiguous on the CPU, each shared one once; non-persistent
    buffers included. Those that are still the original's, as `description` says, are left out.
    """
    facts = description["tensors"] if description else {}
    return {
        key: tensor.detach().cpu().contiguous()
        for key, tensor in distinct_tensors(model)[0].items()
        if KEPT not in facts.get(key, ())
    }


def rebuild(
    original: nn.Module,
    description: Mapping[str, Any],
    state: Mapping[str, Tensor],
    brought: Collection[type[nn.Module]] = (),
) -> nn.Module:
    """The model that `describe` and `weights` saw, made from a copy of `original`, which stays as
    it is. `state` may hold tensors that have not changed, too.

    `brought` are classes that it may hold besides those of `original`, torch and petra. Raises
    ArtifactError when the tensors are not those of the description, NotDescribable when a class is
    unknown.
    """
    model = copy_model(original)
    known = known_classes(original, brought)
    replaced: dict[str, nn.Module] = {}
    for change in description["modules"]:
        path = change["path"]
        module = model.get_submodule(path)
        if "class" in change:
            replaced[path] = module
            module = blank(find_class(change["class"], known, path))
            model = _with(model, path, module)
        elif "moved" in change:
            module = replaced[change["moved"]]
            model = _with(model, path, module)
        _apply(change, module)
    for path, first in description["module_aliases"].items():
        model = _with(model, path, model.get_submodule(first))
    _fill(model, description, state)
    return model


# -- describing ------------------------------------------------------------------------------------


@dataclass
class _Pair:
    """A module of the model and what it is described relative to: its original, or an empty
    instance when `new`. An original that is now held by what took its place has `moved` from there.
    """

    path: str
    module: nn.Module
    reference: nn.Module
    new: bool
    moved: str | None = None


@dataclass
class _Pairing:
    known: Mapping[str, type[nn.Module] | None]
    pairs: list[_Pair] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    _seen: dict[int, tuple[str, nn.Module | None]] = field(default_factory=dict)
    _used: set[int] = field(default_factory=set)

    def visit(
        self, path: str, module: nn.Module, old: nn.Module | None, place: str | None = None
    ) -> None:
        """Pair `module` and all below it, parents first; a module met again is the alias of its
        first path. `old` is its original, whose place was `place` where it is another.
        """
        if id(module) in self._seen:
            first, kept = self._seen[id(module)]
            if kept is None or kept is not old:
                self.aliases[path] = first
            return
        if isinstance(module, torch.fx.GraphModule | torch.jit.ScriptModule):
            raise NotDescribable(
                f"layer {path!r}: a {type(module).__name__} is code, which is not stored"
            )
        kept = old if type(module) is type(old) and id(old) not in self._used else None
        self._seen[id(module)] = (path, kept)
        self._used.add(id(kept))
        if kept is None:
            cls = find_class(class_name(type(module)), self.known, path)
            if cls is not type(module) or issubclass(cls, nn.RNNBase):
                raise NotDescribable(
                    f"layer {path!r}: a new {type(module).__name__} cannot be described"
                )
        reference, new = (kept, False) if kept is not None else (blank(type(module)), True)
        self.pairs.append(_Pair(path, module, reference, new, moved=None if new else place))
        for name, child in module._modules.items():
            if child is None:
                continue
            inside = f"{path}.{name}" if path else name
            if new and isinstance(module, Holding) and child is module.layer:
                self.visit(inside, child, old, path if place is None else place)
            else:
                self.visit(inside, child, reference._modules.get(name))

    def same_objects(self) -> dict[int, int]:
        """Ids of modules and tensors that `rebuild` keeps as objects, with the ids of their
        originals.
        """
        same = {}
        taken: set[int] = set()
        for pair in self.pairs:
            if pair.new:
                continue
            same[id(pair.module)] = id(pair.reference)
            for slot in SLOTS:
                old: dict[str, Tensor | None] = getattr(pair.reference, slot)
                for name, tensor in getattr(pair.module, slot).items():
                    counterpart = old.get(name)
                    if (
                        tensor is None
                        or counterpart is None
                        or id(tensor) in same
                        or id(counterpart) in taken
                    ):
                        continue
                    same[id(tensor)] = id(counterpart)
                    taken.add(id(counterpart))
        return same


def _change(pair: _Pair, comparison: Comparison) -> dict[str, Any]:
    """What distinguishes a module from its reference; only its path when nothing does."""
    change: dict[str, Any] = {"path": pair.path}
    if pair.new:
        change["class"] = class_name(type(pair.module))
    if pair.moved is not None:
        change["moved"] = pair.moved
    skipped = _TREE | (_DERIVED if isinstance(pair.module, nn.RNNBase) else frozenset())
    now = {k: v for k, v in vars(pair.module).items() if k not in skipped}
    before = {k: v for k, v in vars(pair.reference).items() if k not in skipped}
    changed = {}
    for name, value in now.items():
        if name in before and comparison.same(value, before[name]):
            continue
        try:
            changed[name] = encode(value)
        except NotDescribable as error:
            raise NotDescribable(
                f"layer {pair.path!r}: attribute {name!r}: {error.message}"
            ) from error
    if changed:
        change["set"] = changed
    if deleted := [name for name in before if name not in now]:
        change["deleted"] = deleted
    for slot in (*SLOTS, "_modules"):
        present = [[name, value is not None] for name, value in getattr(pair.module, slot).items()]
        if present != [
            [name, value is not None] for name, value in getattr(pair.reference, slot).items()
        ]:
            change[slot] = present
    return change


# -- rebuilding ------------------------------------------------------------------------------------


def _apply(change: Mapping[str, Any], module: nn.Module) -> None:
    """Attributes and places for children and tensors; the tensors come later."""
    for name, value in change.get("set", {}).items():
        module.__dict__[name] = decode(value)
    for name in change.get("deleted", ()):
        del module.__dict__[name]
    for slot in (*SLOTS, "_modules"):
        if slot not in change:
            continue
        old = dict(getattr(module, slot))
        # What is new comes later; a tensor on "meta" marks a place that has none yet.
        empty = nn.Module() if slot == "_modules" else torch.empty(0, device="meta")
        held = getattr(module, slot)
        held.clear()
        for name, present in change[slot]:
            kept = old.get(name)
            held[name] = (kept if kept is not None else empty) if present else None


def _fill(model: nn.Module, description: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Put the stored tensors in their places. A tensor that exists keeps its identity, for others
    that refer to it.
    """
    facts, aliases = description["tensors"], description["tensor_aliases"]
    held = list(tensor_slots(model))
    keys = {slot.key for slot in held} - set(aliases)
    kept = {key for key, fact in facts.items() if KEPT in fact} - set(state)
    if not keys == set(facts) == set(state) | kept:
        odd = sorted((keys ^ set(state)) | (keys ^ set(facts)))
        raise ArtifactError(
            f"stored tensors do not fit the model: {', '.join(odd[:3])}",
            hint="the entry is damaged",
        )
    filled: dict[str, Tensor] = {}
    used: set[int] = set()
    for slot in held:
        if slot.key in aliases:
            continue
        tensor = slot.tensor
        own = slot.key in kept and not tensor.is_meta
        value = tensor.detach() if own else laid_out(state[slot.key], facts[slot.key])
        if tensor.is_meta or id(tensor) in used:  # a new place, or one that no longer shares
            tensor = nn.Parameter(value, requires_grad=False) if slot.is_parameter else value
        else:
            used.add(id(tensor))
            tensor.data = value
        if slot.is_parameter:
            tensor.requires_grad_("frozen" not in facts[slot.key])
        filled[slot.key] = slot.held[slot.name] = tensor
    for slot in held:
        if slot.key in aliases:
            slot.held[slot.name] = filled[aliases[slot.key]]
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()


def _with(model: nn.Module, path: str, module: nn.Module) -> nn.Module:
    """The model with that module at `path`, which is to exist."""
    if not path:
        return module
    parent, _, name = path.rpartition(".")
    model.get_submodule(parent)._modules[name] = module
    return model
