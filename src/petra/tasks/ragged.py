"""Items of different length as a split: kept whole in memory, padded and masked where they become
a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from petra.core.errors import DataError
from petra.core.interface import DICT, TENSOR
from petra.core.ragged import SHORTEST, Padding, Ragged, by_length, stated_lengths
from petra.tasks.inputs import Inputs
from petra.tasks.tensors import as_tensor, is_scalar, is_text


class RaggedItems(Dataset[Any]):
    """A split of items of different length. `structure` says how the model is called."""

    def __init__(self, ragged: Ragged, targets: Tensor | np.ndarray, structure: str) -> None:
        self.ragged, self.targets, self.structure = ragged, targets, structure

    def __len__(self) -> int:
        return len(self.ragged)

    def __getitem__(self, index: int) -> tuple[Inputs, Any]:
        inputs, targets = self.take(torch.tensor([index]))
        one = {name: t[0] for name, t in inputs.items()} if isinstance(inputs, dict) else inputs[0]
        return one, targets[0]

    def take(self, index: Tensor) -> tuple[Inputs, Any]:
        """The items of these numbers as a batch, padded to the longest of them."""
        targets = self.targets
        chosen = targets[index] if isinstance(targets, Tensor) else targets[index.numpy()]
        return self._inputs(self.ragged.batch(index.numpy())), chosen

    def with_targets(self, targets: Tensor) -> RaggedItems:
        return RaggedItems(self.ragged, targets, self.structure)

    def example(self, n: int, *, longer: int = 0) -> Inputs:
        """`n` items of the median length, or so much longer, for tracing and counting."""
        length, _ = stated_lengths(self.ragged.lengths)
        return self._inputs(self.ragged.at_length(max(length, SHORTEST) + longer, n))

    def bucketed(self, order: Tensor, size: int, seed: int) -> Tensor:
        """`order` with items of similar length together, see `petra.core.ragged.by_length`."""
        random = np.random.default_rng(seed)
        return torch.from_numpy(by_length(order.numpy(), self.ragged.lengths, size, random))

    def _inputs(self, arrays: Mapping[str, np.ndarray]) -> Inputs:
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return tensors if self.structure == DICT else tensors["input"]


def ragged(
    inputs: object,
    targets: object,
    *,
    lengths: object = None,
    padding: Padding | None = None,
) -> RaggedItems:
    """Items of different length and their targets, as a split for any task:
    ``petra.classification(petra.ragged(x, y), ...)``.

    inputs: a list of arrays, one per item (or a column of them), or a dict of such lists, which are
    as long as each other, and of arrays (n, ...) of one shape, passed to the model by name. With
    `lengths` (n,), instead of a list, one array in which items follow each other along the axis of
    the padding.
    `padding` says what stands behind the end of an item and which of mask and lengths the model
    takes; those come by name, so inputs have names then. Targets are as for any split. Everything
    is kept in memory. Raises DataError, naming the item, for what does not fit.
    """
    rule = padding or Padding()
    named = isinstance(inputs, Mapping)
    given: dict[str, object] = (
        {str(key): value for key, value in inputs.items()}
        if isinstance(inputs, Mapping)
        else {"input": inputs}
    )
    _check_names(given, rule, named=named)
    column = np.asarray(targets) if is_text(targets) else as_tensor(targets, what="ragged: targets")
    known = None if lengths is None else _lengths(lengths, len(column))
    data = _read(given, len(column), known, rule)
    return RaggedItems(data, column, DICT if named else TENSOR)


def _read(given: Mapping[str, object], n: int, known: np.ndarray | None, rule: Padding) -> Ragged:
    """Inputs with a length of their own, and those of one shape."""
    values: dict[str, np.ndarray] = {}
    items: dict[str, np.ndarray] = {}
    found: dict[str, np.ndarray] = {}
    for name, value in ((name, _listed(value)) for name, value in given.items()):
        if known is None and isinstance(value, list | tuple):
            values[name], found[name] = _concatenated(value, n, rule, name)
        elif known is None or _is_column(value, n, known, rule):
            items[name] = _column(value, n, name)
        else:
            values[name], found[name] = _whole(value, known, rule, name), known
    if not values:
        raise DataError(
            "ragged: no input has a length of its own",
            hint="give a list of arrays, one per item, or lengths=; else no ragged split is needed",
        )
    first, lengths = next(iter(found.items()))
    for name, own in found.items():
        _check_agree(own, lengths, name, first)
    return Ragged(values, lengths, rule, items)


def _listed(value: Any) -> Any:
    """A list of items, where they come as an array or a column of objects."""
    array = value.to_numpy() if hasattr(value, "to_numpy") else value
    objects = isinstance(array, np.ndarray) and array.dtype == object and array.ndim == 1
    return list(array) if objects and len(array) and not is_scalar(array[0]) else value


def _check_names(given: Mapping[str, object], rule: Padding, *, named: bool) -> None:
    made = [name for name in (rule.mask, rule.lengths) if name]
    if made and not named:
        raise DataError(
            f"ragged: the model takes {made[0]!r} by name, and its other input has none",
            hint="give a dict: petra.ragged({'x': items}, ...), with the names of model.forward",
        )
    if twice := [name for name in made if name in given]:
        raise DataError(
            f"ragged: {twice[0]!r} is given, and made by the padding",
            hint="leave it out of the inputs, or out of the padding",
        )
    if not given:
        raise DataError("ragged: no inputs", hint="give a list of arrays, one per item")


def _lengths(raw: object, n: int) -> np.ndarray:
    lengths = as_tensor(raw, what="ragged: lengths")
    if lengths.ndim != 1 or lengths.is_floating_point() or len(lengths) != n:
        raise DataError(
            f"ragged: lengths are {lengths.dtype} of shape {tuple(lengths.shape)} for {n} targets",
            hint="one whole number per item",
        )
    return _positive(lengths.numpy().astype(np.int64), "lengths")


def _positive(lengths: np.ndarray, name: str) -> np.ndarray:
    if (lengths < 1).any():
        raise DataError(
            f"ragged: {name}: item {int((lengths < 1).argmax())} is empty",
            hint="leave empty items out, or give them one step of padding",
        )
    return lengths


def _concatenated(
    value: Sequence[object], n: int, rule: Padding, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """The items one after another, the axis of the length first, and their lengths."""
    if len(value) != n:
        raise DataError(
            f"ragged: {name}: {len(value)} items but {n} targets", hint="give one target per item"
        )
    arrays = [
        _length_first(as_tensor(x, what=f"ragged: {name}, item {i}").numpy(), rule, name)
        for i, x in enumerate(value)
    ]
    for i, array in enumerate(arrays):
        if array.shape[1:] != arrays[0].shape[1:] or array.dtype != arrays[0].dtype:
            shown = [tuple(np.moveaxis(a, 0, rule.axis).shape) for a in (arrays[0], array)]
            raise DataError(
                f"ragged: {name}: item 0 is {arrays[0].dtype} {shown[0]}, item {i} is"
                f" {array.dtype} {shown[1]}",
                hint=f"items may differ along one axis, here {rule.axis}: petra.Padding(axis=...)",
            )
    lengths = np.array([len(array) for array in arrays], dtype=np.int64)
    return np.concatenate(arrays), _positive(lengths, name)


def _length_first(array: np.ndarray, rule: Padding, name: str) -> np.ndarray:
    if not -array.ndim <= rule.axis < array.ndim:
        raise DataError(
            f"ragged: {name}: an item of shape {array.shape} has no axis {rule.axis}",
            hint="say along which axis of an item lengths differ: petra.Padding(axis=...)",
        )
    return np.moveaxis(array, rule.axis, 0)


def _whole(value: object, lengths: np.ndarray, rule: Padding, name: str) -> np.ndarray:
    array = _length_first(as_tensor(value, what=f"ragged: {name}").numpy(), rule, name)
    if len(array) != lengths.sum():
        raise DataError(
            f"ragged: {name} has {len(array)} steps, and the lengths add up to {lengths.sum()}",
            hint="items follow each other along the axis of the padding, without gaps",
        )
    return np.ascontiguousarray(array)


def _is_column(value: object, n: int, lengths: np.ndarray, rule: Padding) -> bool:
    """Whether an input beside given lengths has one entry per item rather than one per step."""
    shape = tuple(getattr(value, "shape", ()))
    steps = shape[rule.axis] if -len(shape) <= rule.axis < len(shape) else -1
    return bool(shape) and shape[0] == n and steps != lengths.sum()


def _column(value: object, n: int, name: str) -> np.ndarray:
    array: np.ndarray = as_tensor(value, what=f"ragged: {name}").numpy()
    if not array.ndim or len(array) != n:
        raise DataError(
            f"ragged: {name} has shape {array.shape} for {n} targets",
            hint="a list of arrays, one per item; or an array with one row per item",
        )
    return array


def _check_agree(found: np.ndarray, lengths: np.ndarray, name: str, first: str) -> None:
    if not np.array_equal(found, lengths):
        i = int((found != lengths).argmax())
        raise DataError(
            f"ragged: item {i} has {lengths[i]} steps in {first!r} and {found[i]} in {name!r}",
            hint="all inputs of an item are as long as each other; others are arrays (n, ...)",
        )
