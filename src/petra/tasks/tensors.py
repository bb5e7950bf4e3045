"""Numbers as people hold them (NumPy, pandas, lists, scalars) as the tensors that models take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from petra.core.errors import DataError

WIDE = (torch.float64, torch.float16, torch.bfloat16)
"""Floating-point types that come in as float32, which everything computes in."""


def is_text(value: object) -> bool:
    """Whether `value` is text, or an array or list of it."""
    if isinstance(value, str | bytes):
        return True
    if isinstance(value, list | tuple):
        return bool(value) and is_text(value[0])
    if isinstance(value, Tensor) or not hasattr(value, "__array__"):
        return False
    array = np.asarray(value)
    return array.dtype.kind in "US" or (
        array.dtype.kind == "O" and array.size > 0 and isinstance(array.flat[0], str)
    )


def is_array(value: object) -> bool:
    """Whether `value` holds a number, or numbers or text, for several items: an array, a column, a
    list of scalars."""
    if isinstance(value, Tensor):
        return value.ndim > 0
    if isinstance(value, list | tuple):
        return bool(value) and (
            is_scalar(value[0]) or (isinstance(value[0], list) and is_array(value[0]))
        )
    return hasattr(value, "__array__") and not is_scalar(value)


def is_scalar(value: object) -> bool:
    """Whether `value` is one number or one word, which only a single item can have."""
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim == 0
    return isinstance(value, int | float | str | np.generic)


def as_tensor(value: object, *, what: str) -> Tensor:
    """Numbers of any kind as a dense tensor on the CPU: floating point as float32, integers and
    booleans as they are.

    Memory is shared where it can be. Raises DataError, beginning with `what`, for anything else.
    """
    if isinstance(value, Tensor):
        tensor = value.detach().cpu()
        tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
    else:
        tensor = _from_array(_as_array(value, what=what), what=what)
    return tensor.float() if tensor.dtype in WIDE else tensor


def _as_array(value: object, *, what: str) -> np.ndarray:
    if is_text(value):
        raise DataError(
            f"{what} are text", hint="models compute with numbers: encode the text first"
        )
    if np.ma.is_masked(value):
        raise DataError(f"{what} have masked entries", hint="fill them first: array.filled(0)")
    if isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value):
        shapes = sorted({tuple(as_tensor(v, what=what).shape) for v in value})
        if len(shapes) > 1:
            raise DataError(
                f"{what} have shapes {shapes[0]} and {shapes[-1]}",
                hint="pad or crop them to one shape",
            )
        value = [as_tensor(v, what=what).numpy() for v in value]
    scalar = isinstance(value, int | float | np.generic | list | tuple)
    if not scalar and not hasattr(value, "__array__"):
        raise DataError(
            f"{what} are {type(value).__name__}",
            hint="pack what belongs together into one array, such as boxes and labels as (most, 5),"
            " padded"
            if isinstance(value, Mapping)
            else "allowed: tensors, NumPy arrays, lists of numbers",
        )
    try:
        return np.asarray(value)
    except (
        ValueError,
        TypeError,
        OverflowError,
    ) as error:
        # Lists of several lengths, integers beyond 64 bits.
        raise DataError(
            f"{what} make no array: {error}", hint="give all items one shape"
        ) from error


def _from_array(array: np.ndarray, *, what: str) -> Tensor:
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "O":
        return _from_objects(array, what=what)
    if kind not in "fiubc":
        raise DataError(f"{what} are {array.dtype}", hint="convert them to numbers first")
    if kind == "f" and size > 4:
        array = array.astype(np.float32) if size > 8 else array
    elif kind == "u" and size > 1:
        array = array.astype(np.int64)
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    usable = native.flags.writeable and all(step >= 0 for step in native.strides)
    return torch.from_numpy(native if usable else native.copy())


def _from_objects(array: np.ndarray, *, what: str) -> Tensor:
    """An object array, as mixed columns and lists of arrays become; entries must be alike."""
    if array.size == 0:
        return torch.zeros(array.shape)
    for i, entry in enumerate(array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)):
        for value in entry:
            if not isinstance(value, int | float | np.number | np.bool_ | np.ndarray):
                raise DataError(
                    f"{what} hold a {type(value).__name__} ({str(value)[:40]!r}) in row {i}",
                    hint=(
                        "keep the columns of numbers, e.g. frame.select_dtypes('number'), or encode"
                        " the others"
                    ),
                )
    inner: list[Any] = array.tolist()
    try:
        stacked = np.array(inner, dtype=np.float32) if array.ndim > 1 else np.stack(inner)
    except ValueError as error:
        raise DataError(
            f"{what} make no array: {error}", hint="give all items one shape"
        ) from error
    if stacked.dtype.kind == "O":
        raise DataError(f"{what} hold integers beyond 64 bits", hint="give them as float")
    return _from_array(stacked, what=what)


Module = TypeVar("Module", bound=nn.Module)


def apply_at_full_precision(
    module: Module, fn: Callable[[Tensor], Tensor], recurse: bool, names: Iterable[str]
) -> Module:
    """What `nn.Module._apply` does, but that the buffers `names` are not narrowed to 16 bits: they
    are in the units of data, which may have more digits.
    """
    before = {name: getattr(module, name) for name in names}
    nn.Module._apply(module, fn, recurse)  # type: ignore[no-untyped-call]
    for name, kept in before.items():
        now = getattr(module, name)
        if now.dtype.itemsize < kept.dtype.itemsize:
            setattr(module, name, kept.to(now.device))
    return module
