"""What may stand for a split: arrays, a data set of items, a loader of batches; and what cannot,
told apart by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from petra.core.errors import DataError
from petra.tasks.inputs import Inputs, as_inputs, batch_size, map_inputs
from petra.tasks.loaders import detached
from petra.tasks.pairs import TARGET_KEYS, as_pair
from petra.tasks.tensors import as_tensor, is_array, is_scalar, is_text

PAIR_HINT = "allowed: an (inputs, targets) pair of arrays, a torch Dataset, a DataLoader"


class Arrays(Dataset[Any]):
    """All items in memory: inputs, and targets (n, ...) that are a tensor, or text until a task has
    read them."""

    def __init__(self, inputs: Inputs, targets: Tensor | np.ndarray) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int | Tensor | slice | np.ndarray) -> tuple[Inputs, Any]:
        return map_inputs(self.inputs, lambda t: t[index]), self.targets[index]

    def take(self, index: Tensor) -> tuple[Inputs, Any]:
        """The items of these numbers, as a batch."""
        return self[index if isinstance(self.targets, Tensor) else index.numpy()]

    def with_targets(self, targets: Tensor) -> Arrays:
        return Arrays(self.inputs, targets)


class Items(Dataset[Any]):
    """A sequence of items that is no torch Dataset, such as a list or a Hugging Face data set."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def as_source(source: object, *, where: str) -> Dataset[Any] | Iterable[Any]:
    """A Dataset of items, or an iterable of batches.

    Reads nothing but the first item of a plain sequence.

    Raises DataError for what can be read only once, what has no end that is known, and what is no
    data.
    """
    _refuse(source, where)
    if type(source) is TensorDataset and len(source.tensors) == 2:
        return _arrays(*source.tensors, where=where)
    if isinstance(source, Dataset):
        if not isinstance(source, Sized):
            raise DataError(
                f"{where}: {type(source).__name__} has no length", hint="define __len__"
            )
        return source
    if isinstance(source, DataLoader):
        return detached(source)
    if isinstance(source, tuple | list) and len(source) == 2 and _is_column(source[1]):
        return _arrays(source[0], source[1], where=where)
    if isinstance(source, Mapping) and any(key in source for key in TARGET_KEYS):
        return _arrays(*as_pair(source, where=where), where=where)
    if (
        hasattr(source, "__getitem__")
        and isinstance(source, Sized)
        and not isinstance(source, Mapping)
    ):
        return _sequence(source, where)
    if isinstance(source, Iterable) and not isinstance(source, Mapping):
        return source
    raise DataError(f"{where}: got {type(source).__name__}", hint=PAIR_HINT)


def _is_column(value: object) -> bool:
    return is_array(value) or (isinstance(value, list | tuple) and is_text(value))


def _refuse(source: Any, where: str) -> None:
    """Raise DataError for the mistakes that have a remedy of their own."""
    if isinstance(source, IterableDataset):
        raise DataError(
            f"{where}: {type(source).__name__} is a stream of items without batches",
            hint="wrap it: torch.utils.data.DataLoader(stream, batch_size=64)",
        )
    if isinstance(source, str | bytes | Path):
        raise DataError(
            f"{where}: got the path {str(source)!r}", hint=f"load it first; {PAIR_HINT}"
        )
    if isinstance(source, type):
        raise DataError(
            f"{where}: got the class {source.__name__}",
            hint=f"make one of it: {source.__name__}(...)",
        )
    if isinstance(source, Tensor | np.ndarray) or hasattr(source, "to_numpy"):
        raise DataError(
            f"{where}: got {type(source).__name__} alone", hint="give a pair: (inputs, targets)"
        )
    if hasattr(source, "__next__") and iter(source) is source:
        raise DataError(
            f"{where}: {type(source).__name__} can be read only once, and petra reads its data many"
            " times",
            hint=(
                "give what starts anew each time: a DataLoader, a Dataset, or list(...) of the"
                " batches"
            ),
        )
    if callable(source) and not isinstance(source, Iterable | Sized):
        raise DataError(f"{where}: got a function", hint="call it, and give what it returns")


def _sequence(source: Any, where: str) -> Dataset[Any] | Iterable[Any]:
    """Items where the first target is that of one item, batches otherwise."""
    if sized(source, where=where) == 0:
        raise DataError(f"{where} is empty", hint="give at least one item")
    try:
        first = source[0]
    except (
        KeyError,
        TypeError,
        IndexError,
    ):
        # Indexed by something else: it is read in its own order.
        return source  # type: ignore[no-any-return]
    if isinstance(first, tuple | list | Mapping) and (
        isinstance(first, Mapping) or len(first) == 2
    ):
        _, target = as_pair(first, where=f"{where}, item 0")
        return Items(source) if is_scalar(target) else source
    return source  # type: ignore[no-any-return]


def _arrays(inputs: object, targets: object, *, where: str) -> Arrays:
    checked = as_inputs(_stacked(inputs, targets), where=where)
    column: Tensor | np.ndarray
    if is_text(targets):
        column = np.asarray(targets)
    else:
        column = as_tensor(targets, what=f"{where}: targets")
    if batch_size(checked) != len(column):
        raise DataError(
            f"{where}: {batch_size(checked)} inputs but {len(column)} targets",
            hint="give one target per item",
        )
    return Arrays(checked, column)


def _stacked(inputs: object, targets: object) -> object:
    """A list of the arrays of single items as one array; anything else as it is."""
    n = len(targets) if isinstance(targets, Sized) else 0
    items = (
        isinstance(inputs, list)
        and len(inputs) == n
        and all(is_array(x) and len(x) != n for x in inputs)
    )
    if not items or not isinstance(inputs, list) or is_scalar(inputs[0]):
        return inputs
    tensors = [as_tensor(x, what="inputs") for x in inputs]
    return torch.stack(tensors) if len({t.shape for t in tensors}) == 1 else inputs


def sized(source: object, *, where: str = "the data") -> int | None:
    """Items of a dataset or batches of a loader; None where that is not known, as of a loader of a
    stream.

    Raises DataError where asking for it fails.
    """
    try:
        return len(source) if isinstance(source, Sized) else None
    except (
        TypeError,
        NotImplementedError,
    ):
        # A DataLoader looks sized even where its dataset is not.
        return None
    except Exception as error:
        raise DataError(
            f"{where}: {type(source).__name__} has no length: {error}", hint="mend its __len__"
        ) from error


Reader = Callable[..., Tensor]
"""reader(raw, *, where) -> targets (n, ...): how a task reads what stands for targets.

See `petra.tasks.targets`.
"""
