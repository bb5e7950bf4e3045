"""Attribute values of modules: written as JSON and read back with their Python types, or compared
where they lie.
"""

from __future__ import annotations

import functools
import json
import math
import types
import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from petra.core.errors import PetraError


class NotDescribable(PetraError):
    """A model holds what JSON and tensors cannot rebuild: a foreign class, a hook, a closure."""


def encode(value: object) -> Any:
    """JSON for `value`, of which `decode` makes an equal value of the same types.

    Covers None, bool, int, float, str, torch dtypes, and lists, tuples, sizes, sets and
    string-keyed dicts of them. Anything else, subclasses of these included, raises NotDescribable.
    """
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}  # type: ignore[arg-type]
    if kind is list:
        return [encode(v) for v in value]  # type: ignore[attr-defined]
    if kind in (tuple, torch.Size):
        return {kind.__name__.lower(): [encode(v) for v in value]}  # type: ignore[attr-defined]
    if kind in (set, frozenset):
        encoded = [encode(v) for v in value]  # type: ignore[attr-defined]
        return {kind.__name__: sorted(encoded, key=json.dumps)}
    if kind is dict and all(type(k) is str for k in value):  # type: ignore[attr-defined]
        return {"dict": {k: encode(v) for k, v in value.items()}}  # type: ignore[attr-defined]
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    raise NotDescribable(f"a {kind.__name__} cannot be written as JSON")


def decode(data: Any) -> Any:
    """The value `encode` was given."""
    if isinstance(data, list):
        return [decode(v) for v in data]
    if not isinstance(data, dict):
        return data
    ((tag, inside),) = data.items()
    match tag:
        case "float":
            return float(inside)
        case "tuple":
            return tuple(decode(v) for v in inside)
        case "size":
            return torch.Size(inside)
        case "set":
            return {decode(v) for v in inside}
        case "frozenset":
            return frozenset(decode(v) for v in inside)
        case "dict":
            return {k: decode(v) for k, v in inside.items()}
        case "dtype":
            found = getattr(torch, inside, None)
            if isinstance(found, torch.dtype):
                return found
    raise NotDescribable(f"unknown value {data!r}")


class Comparison:
    """Whether values found in two models are the same, given which modules and tensors correspond.

    `pairs` maps the id of a module or tensor of one model to its counterpart's in the other; two
    references to counterparts are the same value whatever the weights.
    """

    def __init__(self, pairs: dict[int, int]) -> None:
        self._pairs = pairs
        # Comparisons under way, for objects that contain themselves.
        self._open: set[tuple[int, int]] = set()

    def same(self, a: Any, b: Any) -> bool:
        """Conservative: what cannot be compared is different."""
        if a is b:
            return True
        if type(a) is not type(b):
            return False
        if id(a) in self._pairs:
            return self._pairs[id(a)] == id(b)
        key = (id(a), id(b))
        if key in self._open:
            return True
        self._open.add(key)
        try:
            return self._same_content(a, b)
        finally:
            self._open.discard(key)

    def _same_content(self, a: Any, b: Any) -> bool:
        if isinstance(a, Tensor | nn.Module):
            return (
                type(a) is Tensor
                and a.dtype == b.dtype
                and a.layout == b.layout
                and torch.equal(a, b)
            )
        if isinstance(a, np.ndarray):
            return a.dtype == b.dtype and np.array_equal(a, b)
        if isinstance(a, list | tuple):
            return len(a) == len(b) and all(map(self.same, a, b)) and self._same_attributes(a, b)
        if isinstance(a, dict):
            return (
                list(a) == list(b)
                and all(self.same(a[k], b[k]) for k in a)
                and self._same_attributes(a, b)
            )
        if isinstance(a, weakref.ref):
            return self.same(a(), b())
        if isinstance(a, types.MethodType):
            return a.__func__ is b.__func__ and self.same(a.__self__, b.__self__)
        if isinstance(a, functools.partial):
            return self.same((a.func, a.args, a.keywords), (b.func, b.args, b.keywords))
        if isinstance(a, type | types.FunctionType | types.BuiltinFunctionType | types.ModuleType):
            return False  # copying a model copies none of these: another one is another one
        if hasattr(a, "__dict__"):
            return self._same_attributes(a, b)
        return (a == b) is True

    def _same_attributes(self, a: Any, b: Any) -> bool:
        return self.same(getattr(a, "__dict__", None), getattr(b, "__dict__", None))
