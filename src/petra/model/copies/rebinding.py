"""Functions that know their model, as hooks do: in a copy they must know the copy."""

from __future__ import annotations

import copy
import functools
import types
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn


def rebind(copied: nn.Module, memo: dict[int, Any]) -> None:
    """Let functions held by modules (hooks, replaced methods) and weak references know the copy,
    not the original.

    `copy.deepcopy` shares functions, with the variables that they close over.
    """
    known = {id(m) for m in copied.modules()}
    originals = {key for key, value in memo.items() if id(value) in known}
    rebound = _Rebinding(memo, originals)
    for module in copied.modules():
        for name, value in list(vars(module).items()):
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            if isinstance(value, dict) and name.endswith("_hooks"):
                for key, hook in value.items():
                    value[key] = rebound.of(hook)
            else:
                vars(module)[name] = rebound.of(value)


class _Rebinding:
    """Functions whose variables lead to one of `originals`, made again around the copies that
    `memo` has of those."""

    def __init__(self, memo: dict[int, Any], originals: set[int]) -> None:
        self._memo = memo
        self._originals = originals
        self._made: dict[int, Any] = {}

    def of(self, value: Any) -> Any:
        """`value` itself where it leads to no module of the original."""
        if id(value) in self._made:
            return self._made[id(value)]
        if isinstance(value, weakref.ref) and id(value()) in self._originals:
            return weakref.ref(self._memo[id(value())])
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return types.MethodType(self.of(value.__func__), value.__self__)
        if isinstance(value, functools.partial) and isinstance(
            value.func, types.FunctionType | functools.partial
        ):
            made = functools.partial(self.of(value.func), *value.args, **value.keywords)
            vars(made).update({key: self.of(held) for key, held in vars(value).items()})
            return made
        return value

    def _function(self, function: types.FunctionType) -> types.FunctionType:
        if not self._leads(function, set()):
            return function
        closure = tuple(types.CellType() for _ in function.__closure__ or ())
        made = types.FunctionType(
            function.__code__,
            function.__globals__,
            function.__name__,
            self._inside(function.__defaults__),
            closure,
        )
        self._made[id(function)] = made
        for cell, old in zip(closure, function.__closure__ or (), strict=True):
            if _is_filled(old):
                cell.cell_contents = self._inside(old.cell_contents)
        made.__kwdefaults__ = self._inside(function.__kwdefaults__)
        made.__module__, made.__qualname__ = function.__module__, function.__qualname__
        made.__dict__.update({key: self._inside(value) for key, value in vars(function).items()})
        return made

    def _inside(self, value: Any) -> Any:
        """A variable of a function: copied where it leads to the model, shared otherwise."""
        if not self._leads(value, set()):
            return value
        return self.of(
            value if isinstance(value, types.FunctionType) else copy.deepcopy(value, self._memo)
        )

    def _leads(self, value: Any, seen: set[int]) -> bool:
        if id(value) in self._originals:
            return True
        if id(value) in seen:
            return False
        seen.add(id(value))
        return any(self._leads(part, seen) for part in _parts(value))


def _parts(value: Any) -> Iterator[Any]:
    """What a function, or a plain container among its variables, leads to directly; tensors of a
    pass lead nowhere."""
    if isinstance(value, types.FunctionType):
        yield from (cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell))
        yield from (value.__defaults__ or (), value.__kwdefaults__ or {}, vars(value))
    elif isinstance(value, types.MethodType):
        yield from (value.__func__, value.__self__)
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords, vars(value))
    elif isinstance(value, weakref.ref):
        yield value()
    elif isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
