"""ONNX's operators that move, choose, pad and make values, of tensors and of sizes alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from petra.model.imported.elementwise import Attributes, Run
from petra.model.imported.values import (
    Unreadable,
    Value,
    check_size,
    is_static,
    numbers,
    plain,
    row,
    shape_of,
    tensor,
)


def _same(attributes: Attributes, x: Value) -> Value:
    return x


def _dropout(attributes: Attributes, x: Value, ratio: Value = None, train: Value = None) -> Value:
    if train is not None and any(numbers(train)):
        raise Unreadable("dropout in training mode: export the model in evaluation mode")
    return x


def _shape(attributes: Attributes, x: Value) -> Value:
    sizes = shape_of(x)
    return row(sizes[attributes.get("start", 0) : attributes.get("end")])


def _size(attributes: Attributes, x: Value) -> Value:
    return math.prod(shape_of(x))


def _reshape(attributes: Attributes, x: Value, shape: Value = None) -> Value:
    """0 takes over a size of the input, -1 is what is left."""
    wanted = attributes["shape"] if shape is None else numbers(shape)
    have = shape_of(x)
    if attributes.get("allowzero", 0) and any(_is(size, 0) for size in wanted):
        raise Unreadable("a reshape to no elements")
    sizes = [have[i] if _is(size, 0) else size for i, size in enumerate(wanted)]
    return np.asarray(x, object).reshape(sizes) if is_static(x) else x.reshape(sizes)


def _is(size: Any, number: int) -> bool:
    """Whether a size is that number; one that is free is none."""
    return isinstance(size, int) and size == number


def _flatten(attributes: Attributes, x: Tensor) -> Tensor:
    axis = attributes.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    if axis == 0:
        return x.reshape(1, -1)
    x = x.flatten(0, axis - 1)
    return x.flatten(1) if x.ndim > 1 else x.unsqueeze(1)


def _transpose(attributes: Attributes, x: Value) -> Value:
    x = tensor(x)
    return x.permute(attributes.get("perm") or list(range(x.ndim))[::-1])


def _squeeze(attributes: Attributes, x: Value, axes: Value = None) -> Value:
    given = attributes.get("axes") if axes is None else numbers(axes)
    sizes = shape_of(x)
    chosen = [i for i, size in enumerate(sizes) if _is(size, 1)] if given is None else given
    chosen = [axis % len(sizes) for axis in chosen]
    if is_static(x):
        left = [size for i, size in enumerate(sizes) if i not in chosen]
        return plain(np.asarray(x, object).reshape(left))
    for axis in sorted(chosen, reverse=True):
        x = x.squeeze(axis)
    return x


def _unsqueeze(attributes: Attributes, x: Value, axes: Value = None) -> Value:
    given = attributes["axes"] if axes is None else numbers(axes)
    rank = len(shape_of(x)) + len(given)
    for axis in sorted(axis % rank for axis in given):
        x = np.expand_dims(np.asarray(x, object), axis) if is_static(x) else x.unsqueeze(axis)
    return x


def _concat(attributes: Attributes, *inputs: Value) -> Value:
    if all(map(is_static, inputs)):
        return np.concatenate([np.asarray(x, object) for x in inputs], attributes["axis"])
    return torch.cat([tensor(x) for x in inputs], attributes["axis"])


def _split(attributes: Attributes, x: Value, parts: Value = None) -> tuple[Value, ...]:
    axis = attributes.get("axis", 0)
    sizes = attributes.get("split") if parts is None else numbers(parts)
    if sizes is None:
        total = shape_of(x)[axis]
        each = -(-total // attributes["outputs"])
        sizes = [each] * (attributes["outputs"] - 1)
        sizes.append(total - sum(sizes))
    if is_static(x):
        return tuple(np.split(np.asarray(x, object), np.cumsum(sizes)[:-1].tolist(), axis))
    return tuple(torch.split(x, sizes, axis))


def _slice(attributes: Attributes, x: Value, *given: Value) -> Value:
    starts, ends, axes, steps = (
        attributes.get(name) if value is None else numbers(value)
        for name, value in zip(
            ("starts", "ends", "axes", "steps"), (*given, None, None, None, None), strict=False
        )
    )
    rank = len(shape_of(x))
    for i, (start, end) in enumerate(zip(starts or [], ends or [], strict=True)):
        axis = (axes[i] if axes else i) % rank
        x = _sliced(x, axis, start, end, steps[i] if steps else 1)
    return x


def _sliced(x: Value, axis: int, start: Any, end: Any, step: int) -> Value:
    if is_static(x):
        where = (slice(None),) * axis + (_slice_of(start, end, step),)
        return np.asarray(x, object)[where]
    if step == -1 and start == -1 and isinstance(end, int) and end < -(2**31) + 1:
        return x.flip(axis)
    if step < 0:
        raise Unreadable("a slice that runs backwards over a part of an axis")
    if isinstance(end, int) and end >= 2**31 - 1 and isinstance(start, int) and start == 0:
        return x if step == 1 else x[(slice(None),) * axis + (slice(None, None, step),)]
    end = None if isinstance(end, int) and end >= 2**31 - 1 else end
    return x[(slice(None),) * axis + (slice(start, end, step),)]


def _slice_of(start: Any, end: Any, step: int) -> slice:
    """Before the beginning, which -1 would not be, is None."""
    low = isinstance(end, int) and end < -(2**31) + 1
    return slice(start, None if step < 0 and low else end, step)


def _gather(attributes: Attributes, x: Value, index: Value) -> Value:
    axis = attributes.get("axis", 0)
    if is_static(x) and is_static(index):
        return np.take(np.asarray(x, object), np.asarray(index, object).astype(int), axis)
    x = tensor(x)
    axis %= x.ndim
    if is_static(index) and not shape_of(index):
        return x.select(axis, plain(index))
    if is_static(index):
        index = row(i + x.shape[axis] if i < 0 else i for i in numbers(index))
    index = tensor(index)
    if axis == 0 and x.ndim == 2 and x.is_floating_point():
        return functional.embedding(index, x)
    found = x.index_select(axis, index.reshape(-1))
    return found.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _gather_elements(attributes: Attributes, x: Value, index: Value) -> Tensor:
    return torch.gather(tensor(x), attributes.get("axis", 0), tensor(index).long())


def _gather_nd(attributes: Attributes, x: Value, index: Value) -> Value:
    """The last axis of the index counts through the first axes of the input."""
    if attributes.get("batch_dims", 0):
        raise Unreadable("a choice by several axes for each item of a batch (batch_dims)")
    return tensor(x)[tuple(tensor(index).long().unbind(-1))]


def _expand(attributes: Attributes, x: Value, shape: Value) -> Value:
    """Both ways: a size of 1 in the shape leaves the input's."""
    x, wanted = tensor(x), numbers(shape)
    have = (1,) * (len(wanted) - x.ndim) + tuple(x.shape)
    wanted = [1] * (len(have) - len(wanted)) + wanted
    sizes = [own if _is(size, 1) else size for own, size in zip(have, wanted, strict=True)]
    check_size(sizes)
    return x.expand(sizes)


def _tile(attributes: Attributes, x: Value, repeats: Value) -> Value:
    x, times = tensor(x), numbers(repeats)
    check_size([a * b for a, b in zip(x.shape, times, strict=True)])
    return x.repeat(times)


def _pad(
    attributes: Attributes, x: Value, pads: Value = None, value: Value = None, axes: Value = None
) -> Value:
    x = tensor(x)
    given = attributes["pads"] if pads is None else numbers(pads)
    chosen = range(x.ndim) if axes is None else [axis % x.ndim for axis in numbers(axes)]
    number = attributes.get("value", 0.0) if value is None else numbers(value)[0]
    each = {axis: (given[i], given[i + len(given) // 2]) for i, axis in enumerate(chosen)}
    touched = [axis for axis, both in each.items() if any(not _is(p, 0) for p in both)]
    if not touched:
        return x
    listed = [p for axis in range(x.ndim - 1, min(touched) - 1, -1) for p in each.get(axis, (0, 0))]
    check_size([size + sum(each.get(i, (0, 0))) for i, size in enumerate(x.shape)])
    mode = attributes.get("mode", "constant")
    if mode == "constant":
        return functional.pad(x, listed, value=number)
    if mode not in ("reflect", "edge"):
        raise Unreadable(f"a padding of the mode {mode!r}")
    return functional.pad(x, listed, mode="replicate" if mode == "edge" else mode)


def _full(attributes: Attributes, shape: Value) -> Value:
    sizes = numbers(shape)
    check_size(sizes)
    given = attributes.get("value")
    number = 0.0 if given is None else np.asarray(given).reshape(-1)[0].item()
    if len(sizes) == 1 and isinstance(sizes[0], int) and sizes[0] <= 64 and type(number) is int:
        return row([number] * sizes[0])
    kind = torch.from_numpy(np.asarray(given)).dtype if given is not None else torch.float32
    return torch.full(sizes, number, dtype=kind)


def _range(attributes: Attributes, start: Value, limit: Value, delta: Value) -> Tensor:
    bounds = [numbers(x)[0] for x in (start, limit, delta)]
    if all(isinstance(x, int) for x in bounds):
        check_size([len(range(*bounds))])
    return torch.arange(*bounds)


def _one_hot(attributes: Attributes, index: Value, depth: Value, values: Value) -> Tensor:
    off, on = numbers(values)
    count, axis = int(numbers(depth)[0]), attributes.get("axis", -1)
    index = tensor(index).long()
    steps = torch.arange(count)
    axis = axis % (index.ndim + 1)
    steps = steps.reshape([-1 if i == axis else 1 for i in range(index.ndim + 1)])
    hit = torch.where(index < 0, index + count, index).unsqueeze(axis) == steps
    kind = torch.float32 if isinstance(on, float) else torch.int64
    return torch.where(hit, on, off).to(kind)


def _triangle(attributes: Attributes, x: Value, k: Value = None) -> Tensor:
    x, diagonal = tensor(x), 0 if k is None else int(numbers(k)[0])
    return torch.triu(x, diagonal) if attributes.get("upper", 1) else torch.tril(x, diagonal)


MOVING: Mapping[str, Run] = {
    "Identity": _same,
    "Dropout": _dropout,
    "Shape": _shape,
    "Size": _size,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Expand": _expand,
    "Tile": _tile,
    "Pad": _pad,
    "ConstantOfShape": _full,
    "Range": _range,
    "OneHot": _one_hot,
    "Trilu": _triangle,
}
