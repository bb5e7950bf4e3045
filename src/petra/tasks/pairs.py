"""What a data set gives for an item, or a loader for a batch, taken apart into inputs and
target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from petra.core.errors import DataError
from petra.core.interface import Interface
from petra.tasks.inputs import Inputs, as_inputs, batch_interface, named, type_name, unnamed
from petra.tasks.tensors import is_text

TARGET_KEYS = ("labels", "label", "targets", "target", "y")


def as_pair(item: object, *, where: str, what: str = "a batch") -> tuple[Any, Any]:
    """Inputs and target, both still as they came, of a pair or of a mapping with one of
    TARGET_KEYS.

    A mapping's other entries are the inputs: passed by name, or by position where there is only
    one.
    """
    if isinstance(item, Mapping):
        return _from_mapping(item, where)
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    if isinstance(item, tuple | list):
        raise DataError(
            f"{where}: {len(item)} values, and which is the target is not said",
            hint=(
                "yield (inputs, target): ((a, b), target) for two inputs, without what is neither,"
                " such as ids"
            ),
        )
    hint = "leave such items out beforehand" if item is None else "yield (inputs, target) pairs"
    kind = "None" if item is None else type(item).__name__
    raise DataError(f"{where}: {what} is {kind}, not a pair", hint=hint)


def _from_mapping(item: Mapping[Any, Any], where: str) -> tuple[Any, Any]:
    found = [key for key in TARGET_KEYS if key in item]
    inputs = {key: value for key, value in item.items() if key not in found and value is not None}
    if len(found) != 1 or not inputs:
        keys = ", ".join(map(str, item)) or "none"
        raise DataError(
            f"{where}: a dict with the keys {keys}",
            hint=(
                f"besides the inputs it must hold one target, named {', '.join(TARGET_KEYS[:-1])}"
                " or y; or yield (inputs, target) pairs"
            ),
        )
    words = [key for key, value in inputs.items() if is_text(value)]
    if words:
        raise DataError(
            f"{where}: {words[0]!r} is text",
            hint=f"drop it: remove_columns({words!r}), or encode it",
        )
    return (inputs if len(inputs) > 1 else next(iter(inputs.values()))), item[found[0]]


def stacked(items: Sequence[Inputs], numbers: Sequence[int], *, where: str) -> Inputs:
    """One batch of the inputs of several items, whose `numbers` name them in errors."""
    columns: dict[str, list[Tensor]] = {name: [] for name in named(items[0])}
    for item, number in zip(items, numbers, strict=True):
        tensors = named(item)
        if tensors.keys() != columns.keys():
            raise DataError(
                f"{where}, item {number}: its inputs are {', '.join(tensors)}, those before have"
                f" {', '.join(columns)}",
                hint="all items must have the same inputs",
            )
        for name, tensor in tensors.items():
            first = columns[name][0] if columns[name] else tensor
            shapes = tuple(tensor.shape), tuple(first.shape)
            here = f"{where}, item {number}"
            _check_alike(tensor, *shapes, type_name(first), where=here, name=name)
            columns[name].append(tensor)
    return unnamed({name: torch.stack(column) for name, column in columns.items()}, like=items[0])


def joined(batches: Sequence[Inputs], *, where: str) -> Inputs:
    """Several batches of inputs as one. Raises DataError unless their items are alike."""
    for batch in batches[1:]:
        check_structure(batch, batch_interface(batches[0]), where=where)
    return unnamed(
        {name: torch.cat([named(batch)[name] for batch in batches]) for name in named(batches[0])},
        like=batches[0],
    )


def check_structure(inputs: Inputs, interface: Interface, *, where: str) -> None:
    """Raise DataError unless a batch has the inputs that a model takes: their names, types and,
    where they are not free, sizes per item."""
    got, wanted = named(inputs), {spec.name: spec for spec in interface.inputs}
    if got.keys() != wanted.keys() or batch_interface(inputs).structure != interface.structure:
        raise DataError(
            f"{where}: its inputs are {', '.join(got)}, the first batch had {', '.join(wanted)}",
            hint="all batches must have the same inputs",
        )
    for name, tensor in got.items():
        if tensor.ndim == 0:
            raise DataError(
                f"{where}: {name} has no batch axis", hint="batch along dimension 0: batch_size=64"
            )
        spec, got_shape = wanted[name], tuple(tensor.shape)
        sizes = tuple(
            got_shape[i] if size is None and i < len(got_shape) else size
            for i, size in enumerate(spec.shape)
        )
        _check_alike(tensor, got_shape[1:], sizes[1:], spec.dtype, where=where, name=name)


def _check_alike(
    tensor: Tensor,
    shape: tuple[int, ...],
    wanted: tuple[int | None, ...],
    dtype: str,
    *,
    where: str,
    name: str,
) -> None:
    """Raise DataError unless an item's input has the shape and type of the first one's."""
    if shape != wanted:
        raise DataError(
            f"{where}: {name} has shape {shape} per item, earlier items have {wanted}",
            hint=(
                "all items must have one shape: pad or crop them, e.g. functional.pad(x, (0, length"
                " - x.shape[-1])); items of different length: petra.ragged"
            ),
        )
    if type_name(tensor) != dtype:
        raise DataError(
            f"{where}: {name} is {tensor.dtype}, earlier items are torch.{dtype}",
            hint="give all items one type",
        )


def read_batch(item: object, *, where: str) -> tuple[Inputs, Any]:
    """Inputs of a loader's batch as tensors and its targets as they came."""
    inputs, target = as_pair(item, where=where)
    return as_inputs(inputs, where=where), target
