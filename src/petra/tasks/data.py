"""A split of the data behind one interface, whatever the user brought: tensors, a dataset or a data loader."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

from petra.core.errors import DataError
from petra.tasks.inputs import Inputs, as_inputs, batch_size, map_inputs

Batch = tuple[Inputs, Tensor]


def _pair(item: object, *, where: str) -> tuple[Any, Tensor]:
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(f"{where}: a batch is {type(item).__name__}", hint="yield (inputs, target) pairs")
    inputs, target = item
    if not isinstance(target, Tensor):
        raise DataError(f"{where}: targets are {type(target).__name__}", hint="targets must be a tensor")
    return inputs, target


@dataclass(frozen=True)
class Split:
    """Batches of (inputs, target) from a `Dataset` of items or a `DataLoader` of batches.

    A dataset is shuffled and batched here (reproducibly, from a seed); a loader is taken as it comes, in its own
    batches and order, because it is the user's.
    """

    source: Any
    name: str = "data"

    @staticmethod
    def of(source: object, *, name: str) -> Split:
        """Wrap what the user gave: an (inputs, targets) pair of tensors, a Dataset, or an iterable loader.

        Raises DataError for anything else and for an empty split.
        """
        if isinstance(source, Split):
            return source
        if isinstance(source, tuple | list) and len(source) == 2 and isinstance(source[1], Tensor):
            source = _as_dataset(source[0], source[1], where=name)
        known = isinstance(source, Dataset | DataLoader) or hasattr(source, "__iter__")
        if not known:
            raise DataError(
                f"{name} split: got {type(source).__name__}",
                hint="allowed: an (inputs, targets) pair of tensors, a torch Dataset, a DataLoader",
            )
        if length(source) == 0:
            raise DataError(f"{name} split is empty", hint="give at least one item")
        return Split(source, name)

    def __len__(self) -> int:
        """Number of items (for a loader of unknown dataset: counted by one pass)."""
        if self._is_loader():
            dataset = getattr(self.source, "dataset", None)
            if isinstance(dataset, Sized) and not getattr(self.source, "drop_last", False):
                return len(dataset)
            return sum(batch_size(inputs) for inputs, _ in self.batches(1))
        return len(self.source)

    def targets(self) -> Tensor | None:
        """All targets where they are in memory, None where finding them would take a pass over the data."""
        if isinstance(self.source, _Tensors):
            return self.source.targets
        if isinstance(self.source, TensorDataset) and len(self.source.tensors) == 2:
            return self.source.tensors[1]
        return None

    def _is_loader(self) -> bool:
        return not isinstance(self.source, Dataset)

    def batches(self, size: int, *, seed: int | None = None, drop_last: bool = False) -> Iterator[Batch]:
        """Batches of `size` items; shuffled when a `seed` is given. Loaders keep their own batch size and order."""
        where = f"{self.name} split"
        if self._is_loader():
            count = 0
            for item in self.source:
                inputs, target = _pair(item, where=where)
                count += 1
                yield as_inputs(inputs, where=where), target
            if count == 0:
                raise DataError(f"{where} is empty", hint="give at least one batch")
            return
        n = len(self.source)
        if seed is None:
            order = torch.arange(n)
        else:
            order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        stop = n - n % size if drop_last and n >= size else n
        for start in range(0, stop, size):
            index = order[start : start + size]
            if isinstance(self.source, _Tensors):
                yield self.source.take(index)
            elif isinstance(self.source, TensorDataset) and len(self.source.tensors) == 2:
                inputs, target = (t[index] for t in self.source.tensors)
                yield inputs, target
            else:
                inputs, target = _pair(default_collate([self.source[int(i)] for i in index]), where=where)
                yield as_inputs(inputs, where=where), target

    def head(self, n: int) -> Inputs:
        """Inputs of the first `n` items (fewer if the first batch is shorter)."""
        inputs, _ = next(self.batches(n))
        return map_inputs(inputs, lambda t: t[:n])


def length(source: object) -> int | None:
    """Items of a dataset or batches of a loader; None where that is not known, as of a loader of a stream."""
    try:
        return len(source) if isinstance(source, Sized) else None
    except TypeError:  # a DataLoader looks sized even where its dataset is not
        return None


class _Tensors(Dataset[Any]):
    """In-memory dataset of structured inputs, sliced a batch at a time."""

    def __init__(self, inputs: Inputs, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Batch:
        return map_inputs(self.inputs, lambda t: t[index]), self.targets[index]

    def take(self, index: Tensor) -> Batch:
        return map_inputs(self.inputs, lambda t: t[index]), self.targets[index]


def _as_dataset(inputs: object, targets: Tensor, *, where: str) -> Dataset[Any]:
    checked = as_inputs(inputs, where=f"{where} split")
    if batch_size(checked) != len(targets):
        raise DataError(
            f"{where} split: {batch_size(checked)} inputs but {len(targets)} targets", hint="give one target per item"
        )
    return _Tensors(checked, targets)
