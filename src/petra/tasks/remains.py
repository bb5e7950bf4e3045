"""What a forward pass leaves on modules: attention weights for plots, position biases indexed once.

It is stale once weights change, holds memory, and does not copy. So it goes when the pass ends, and
the next makes it again.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.fx import GraphModule, Proxy
from torch.nn.modules.lazy import LazyModuleMixin

_OWN = frozenset(vars(nn.Module()))
"""Attributes that every module has: parameters, buffers, children, hooks, mode."""

_DEPTH = 3  # of containers and objects inside attributes
_SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool, Proxy)
_PLAIN = frozenset(
    {type(None), bool, int, float, str, Tensor, nn.Parameter, torch.dtype, torch.device, torch.Size}
)


@contextmanager
def put_back(model: nn.Module) -> Iterator[None]:
    """Put what modules hold back, at the end, where tensors were put into it inside.

    In evaluation mode that is every attribute of a module that was given a tensor, and the content
    of every list, set, dict or object among attributes that was. While training only tensors with a
    gradient history go, or traced ones, so that averages go on; buffers that exist may change in
    either mode. Graphs, whose observers are meant to remember, are left alone. Costs a look at
    every attribute.
    """
    training = model.training
    held: dict[int, tuple[Any, Any]] = {}
    buffers = []
    for module in _modules(model):
        _note(vars(module), held)
        buffers.append((module._buffers, dict(module._buffers)))
        for name, value in vars(module).items():
            if type(value) not in _PLAIN and name not in _OWN:
                _look_into(value, held, _DEPTH)
    try:
        yield
    finally:
        for holder, before in held.values():
            if _given_a_tensor(holder, before, training=training):
                _restore(holder, before)
        for now, old in buffers:
            for name in [n for n, value in now.items() if value is not old.get(n)]:
                _check_buffer(now, old, name, training=training)


def is_traced(value: object) -> bool:
    """Whether a value stands for one that is not known: a tensor or number inside a trace."""
    if isinstance(value, Tensor):
        return isinstance(value, FakeTensor | FunctionalTensor) or torch._is_functional_tensor(
            value
        )
    return isinstance(value, _SYMBOLS)


def _modules(model: nn.Module) -> Iterator[nn.Module]:
    """Those whose code is the user's and whose tensors are there."""
    seen: set[int] = set()
    todo = [model]
    while todo:
        module = todo.pop()
        if id(module) in seen or isinstance(module, GraphModule):
            continue
        seen.add(id(module))
        todo += [child for child in module._modules.values() if child is not None]
        if not isinstance(module, LazyModuleMixin):
            yield module


# -- before ----------------------------------------------------------------------------------------


def _note(holder: Any, held: dict[int, tuple[Any, Any]]) -> None:
    held[id(holder)] = (holder, holder.copy())


def _look_into(value: Any, held: dict[int, tuple[Any, Any]], depth: int) -> None:
    """Note the content of a container or object, and of those in it."""
    if isinstance(value, tuple | frozenset):
        inside: Iterable[Any] = value
    elif isinstance(value, dict | list | set | deque):
        if id(value) in held:
            return
        _note(value, held)
        inside = value.values() if isinstance(value, dict) else value
    elif (attributes := _attributes(value)) is not None:
        if id(attributes) in held:
            return
        _note(attributes, held)
        inside = attributes.values()
    else:
        return
    if depth > 1:
        for part in inside:
            if type(part) not in _PLAIN:
                _look_into(part, held, depth - 1)


def _attributes(value: object) -> dict[str, Any] | None:
    """Of an object that only holds things; modules are looked at as modules."""
    if isinstance(value, nn.Module | Tensor | type) or callable(value):
        return None
    found = getattr(value, "__dict__", None)
    return found if type(found) is dict else None


# -- after -----------------------------------------------------------------------------------------


def _given_a_tensor(holder: Any, before: Any, *, training: bool) -> bool:
    """Whether something new in a container is, or holds, a tensor that must go."""
    if isinstance(holder, dict):
        if len(holder) == len(before) and all(map(operator.is_, holder.values(), before.values())):
            return False
        new = [v for k, v in holder.items() if k not in _OWN and before.get(k) is not v]
    else:
        old = set(map(id, before))
        new = [v for v in holder if id(v) not in old]
    return any(_must_go(value, _DEPTH, training=training) for value in new)


def _must_go(value: Any, depth: int, *, training: bool) -> bool:
    if isinstance(value, Tensor):
        return not training or not value.is_leaf or is_traced(value)
    if type(value) in _PLAIN or not depth:
        return False
    if is_traced(value):
        return True
    if isinstance(value, dict):
        inside: Iterable[Any] = value.values()
    elif isinstance(value, tuple | frozenset | list | set | deque):
        inside = value
    else:
        inside = (_attributes(value) or {}).values()
    return any(_must_go(part, depth - 1, training=training) for part in inside)


def _restore(holder: Any, before: Any) -> None:
    if isinstance(holder, dict):
        for key in [key for key in holder if key not in before and key not in _OWN]:
            del holder[key]
        holder.update({key: value for key, value in before.items() if key not in _OWN})
    else:
        holder.clear()
        (holder.update if isinstance(holder, set) else holder.extend)(before)


def _check_buffer(
    now: dict[str, Tensor | None], old: dict[str, Tensor | None], name: str, *, training: bool
) -> None:
    """A buffer keeps a new tensor, unless it had none or the tensor belongs to the pass."""
    value = now[name]
    if name not in old:
        if _must_go(value, 1, training=training):
            del now[name]
    elif isinstance(value, Tensor):
        traced = not value.is_leaf or is_traced(value)
        if traced or (old[name] is None and not training):
            now[name] = old[name]
