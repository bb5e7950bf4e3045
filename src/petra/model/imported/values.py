"""What flows through an imported graph: tensors, and sizes, which are numbers while they can.

Files compute with shapes as with any other tensor. Traced like that, the batch would be a value
nobody knows; so what is made of shapes and of constants stays numbers of Python's, symbols of a
trace among them: a scalar, or a NumPy array of objects.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Value = Any
"""A tensor, a number, or a NumPy array of numbers (objects)."""

MOST_ELEMENTS = 2**30
"""Of a tensor that a graph makes of sizes."""

_MOST_STATIC = 4096


class Unreadable(Exception):
    """What an operator is asked to do is nothing that petra reads; the text says why."""


def static(array: np.ndarray) -> Value | None:
    """A constant as numbers, None where it is better a tensor: whole numbers in a row, and any
    number that stands alone.
    """
    if array.ndim == 0:
        return array.item()
    if (
        array.dtype.name in ("int64", "int32", "bool")
        and array.ndim == 1
        and array.size <= _MOST_STATIC
    ):
        return _objects(array.tolist(), array.shape)
    return None


def _objects(numbers: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray:
    found = np.empty(len(numbers), object)
    found[:] = numbers
    return found.reshape(shape)


def row(numbers: Iterable[Any]) -> np.ndarray:
    """Numbers as a value of one axis."""
    listed = list(numbers)
    return _objects(listed, (len(listed),))


def is_static(value: Value) -> bool:
    return not isinstance(value, Tensor)


def tensor(value: Value) -> Tensor:
    """A value as a tensor: whole numbers as int64, others as float32."""
    if isinstance(value, Tensor):
        return value
    array = np.asarray(value, object)
    flat = array.reshape(-1).tolist()
    if any(isinstance(n, torch.SymInt | torch.SymFloat) for n in flat):
        dtype = torch.float32 if _has_fractions(flat) else torch.int64
        parts = [torch.scalar_tensor(n, dtype=dtype) for n in flat]
        return torch.stack(parts).reshape(array.shape)
    if not flat:
        return torch.zeros(array.shape, dtype=torch.int64)
    if all(isinstance(n, bool) for n in flat):
        return torch.tensor(flat, dtype=torch.bool).reshape(array.shape)
    dtype = torch.float32 if _has_fractions(flat) else torch.int64
    return torch.tensor(flat, dtype=dtype).reshape(array.shape)


def _has_fractions(numbers: Sequence[Any]) -> bool:
    return any(isinstance(n, float | torch.SymFloat) for n in numbers)


def operands(inputs: Iterable[Value]) -> list[Value]:
    """Inputs for an elementwise operator: all of objects where none is a tensor, else tensors and
    numbers that stand alone.
    """
    values = list(inputs)
    if all(map(is_static, values)):
        return [np.asarray(value, object) for value in values]
    return [_operand(value) for value in values]


def _operand(value: Value) -> Value:
    return tensor(value) if isinstance(value, np.ndarray) and value.ndim else plain(value)


def plain(value: Value) -> Value:
    """A NumPy array without axes as the number that it holds."""
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value


def numbers(value: Value) -> list[Any]:
    """The numbers of a value. Of a tensor that the data make, only outside of a trace."""
    if isinstance(value, Tensor):
        found: list[Any] = value.reshape(-1).tolist()
        return found
    return list(np.asarray(value, object).reshape(-1).tolist())


def shape_of(value: Value) -> tuple[Any, ...]:
    """Sizes: integers, and symbols where a size is free."""
    return tuple(value.shape) if isinstance(value, Tensor) else np.asarray(value, object).shape


def check_size(sizes: Iterable[Any]) -> None:
    """Raise Unreadable for a tensor of more elements than any that makes sense."""
    known = [size for size in sizes if isinstance(size, int)]
    if any(size < 0 for size in known):
        raise Unreadable(f"a negative size: {known}")
    if math.prod(known) > MOST_ELEMENTS:
        raise Unreadable(f"a tensor of more than {MOST_ELEMENTS} elements: {known}")
