"""A split of the data behind one interface, whatever the user brought: arrays, a data set or a data
loader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from petra.core.errors import ConfigError, DataError, PetraError
from petra.tasks.inputs import Inputs, as_inputs, batch_size, map_inputs
from petra.tasks.loaders import read_once
from petra.tasks.pairs import as_pair, joined, read_batch, stacked
from petra.tasks.ragged import RaggedItems
from petra.tasks.sources import Arrays, Reader, as_source, sized
from petra.tasks.targets import numbers
from petra.tasks.tensors import as_tensor, is_text

Batch = tuple[Inputs, Tensor]
MOST_ITEMS = 10**9


@dataclass(frozen=True)
class Split:
    """Batches of (inputs, target) from a `Dataset` of items or an iterable of batches, such as a
    `DataLoader`.

    A dataset is shuffled and batched here (reproducibly, from a seed); a loader is taken as it
    comes, in its own batches, because it is the user's. `limit` is the number of items of one pass
    at most; `reader` makes targets of what stands for them; `only` are the numbers of a dataset's
    items that there are, None for all.
    """

    source: Any
    name: str = "data"
    limit: int | None = None
    reader: Reader = numbers
    only: Tensor | None = field(default=None, compare=False)

    @staticmethod
    def of(source: object, *, name: str, limit: int | None = None) -> Split:
        """Wrap what the user gave: an (inputs, targets) pair of arrays, a Dataset, or an iterable
        of batches.

        Arrays are of NumPy, pandas, torch or lists; a dict with a key such as ``labels`` is a pair
        too. A stream without end needs `limit`. Reads nothing. Raises DataError for anything else,
        for what can be read only once, and for an empty split.
        """
        if limit is not None and (
            isinstance(limit, bool) or not isinstance(limit, int) or limit < 1
        ):
            raise ConfigError(
                f"limit: {limit!r} is no number of items", hint="a whole number from 1, or None"
            )
        if isinstance(source, Split):
            return source if limit is None else replace(source, limit=limit)
        made = as_source(source, where=f"{name} split")
        length = sized(made, where=f"{name} split")
        if length == 0:
            raise DataError(f"{name} split is empty", hint="give at least one item")
        if limit is None and length is not None and length > MOST_ITEMS:
            raise DataError(
                f"{name} split: {length} items are too many for a pass",
                hint="say how many: limit=10_000",
            )
        return Split(made, name, limit)

    def read_by(self, reader: Reader) -> Split:
        """The same split with its targets read by a task's `reader`; those in memory are read at
        once."""
        source = self.source
        if isinstance(source, Arrays | RaggedItems):
            source = source.with_targets(reader(source.targets, where=f"{self.name} split"))
        return replace(self, source=source, reader=reader)

    def __len__(self) -> int:
        """Number of items of a pass (for a loader that cannot tell: counted by one pass)."""
        known = self.known_items()
        return sum(batch_size(inputs) for inputs, _ in self.batches(1)) if known is None else known

    def known_items(self) -> int | None:
        """Number of items of a pass, None where finding it takes one."""
        n: int | None = None
        if isinstance(self.source, Dataset):
            n = len(self.source if self.only is None else self.only)  # type: ignore[arg-type]
        elif (
            isinstance(self.source, DataLoader)
            and self.source.batch_size is not None
            and not self.source.drop_last
        ):
            n = sized(self.source.sampler)
        return n if n is None or self.limit is None else min(n, self.limit)

    def targets(self) -> Tensor | None:
        """All targets where they are in memory, None where finding them would take a pass over the
        data."""
        if isinstance(self.source, Arrays | RaggedItems) and isinstance(
            self.source.targets, Tensor
        ):
            found = self.source.targets
            return (found if self.only is None else found[self.only])[: self.limit]
        return None

    def steps(self, size: int) -> int:
        """Batches of one training pass; read through once only where the source does not know its
        length."""
        n = self.known_items()
        if isinstance(self.source, Dataset):
            assert n is not None
            return max(1, n // size)
        batches = sized(self.source)
        if batches is None or self.limit is not None:
            return sum(1 for _ in self.batches(size, drop_last=True))
        own: int | None = getattr(self.source, "batch_size", None)
        single_last = n is not None and own is not None and own > 1 and n % own == 1
        return batches - 1 if single_last and batches > 1 else batches

    def batches(
        self, size: int, *, seed: int | None = None, drop_last: bool = False
    ) -> Iterator[Batch]:
        """Batches of `size` items; shuffled when a `seed` is given. Loaders keep their own batch
        size and order.

        `drop_last` leaves out what is left over at the end: fewer than `size` items, of a loader a
        single item, which batch normalisation could not train on. Raises DataError naming split and
        item for what cannot be read.
        """
        if isinstance(self.source, Dataset):
            yield from self._of_items(size, self.order(seed), drop_last=drop_last)
        elif drop_last:
            yield from _without_single_last(self._of_loader(seed))
        else:
            yield from self._of_loader(seed)

    def training_pass(self, size: int, *, seed: int) -> Iterator[Batch]:
        """`batches` to train on: without what is left over, and with items of different length
        beside others about as long.
        """
        if isinstance(self.source, RaggedItems):
            yield from self._of_items(size, self._training_order(seed, size), drop_last=True)
        else:
            yield from self.batches(size, seed=seed, drop_last=True)

    def order(self, seed: int | None) -> Tensor:
        """Numbers of a dataset's items in the order in which `batches` gives them."""
        n = self.known_items()
        assert n is not None
        numbers = torch.arange(n) if self.only is None else self.only[:n]
        if seed is None:
            return numbers
        return numbers[torch.randperm(n, generator=torch.Generator().manual_seed(seed))]

    def _training_order(self, seed: int | None, size: int) -> Tensor:
        order = self.order(seed)
        if isinstance(self.source, RaggedItems) and seed is not None:
            return self.source.bucketed(order, size, seed)
        return order

    def item_at(self, position: int, seed: int | None, size: int) -> int:
        """Number of the item at `position` of a training pass: of a dataset its index, of a loader
        the position."""
        if isinstance(self.source, Dataset):
            return int(self._training_order(seed, size)[position])
        return position

    def head(self, n: int) -> Inputs:
        """Inputs of the first `n` items, from as many batches as it takes; fewer if there are no
        more."""
        parts: list[Inputs] = []
        items = 0
        for inputs, _ in self.batches(n):
            parts.append(inputs)
            items += batch_size(inputs)
            if items >= n:
                break
        return map_inputs(joined(parts, where=f"{self.name} split"), lambda t: t[:n])

    def _of_items(self, size: int, order: Tensor, *, drop_last: bool) -> Iterator[Batch]:
        where, n = f"{self.name} split", len(order)
        stop = n - n % size if drop_last and n >= size else n
        for start in range(0, stop, size):
            index = order[start : start + size]
            if isinstance(self.source, Arrays | RaggedItems):
                inputs, raw = self.source.take(index)
            else:
                inputs, raw = self._items(index.tolist(), where)
            yield inputs, self._target(raw, batch_size(inputs), where)

    def _items(self, index: list[int], where: str) -> tuple[Inputs, Any]:
        pairs = [as_pair(self._item(i), where=f"{where}, item {i}", what="it") for i in index]
        read = [
            as_inputs(inputs, where=f"{where}, item {i}")
            for i, (inputs, _) in zip(index, pairs, strict=True)
        ]
        raw = [target for _, target in pairs]
        if not is_text(raw):
            targets = [
                as_tensor(t, what=f"{where}, item {i}: targets")
                for i, t in zip(index, raw, strict=True)
            ]
            odd = next(
                (i for i, t in zip(index, targets, strict=True) if t.shape != targets[0].shape),
                None,
            )
            if odd is not None:
                shapes = sorted({tuple(t.shape) for t in targets})
                raise DataError(
                    f"{where}, item {odd}: targets have shapes {shapes}",
                    hint="give all items one shape: pad them to the largest",
                )
            return stacked(read, index, where=where), torch.stack(targets)
        return stacked(read, index, where=where), raw

    def _item(self, i: int) -> Any:
        try:
            return self.source[i]
        except PetraError:
            raise
        except Exception as error:
            raise _unreadable(f"{self.name} split, item {i}", error) from error

    def _of_loader(self, seed: int | None) -> Iterator[Batch]:
        where, items = f"{self.name} split", 0
        for number, item in enumerate(self._pass(seed)):
            here = f"{where}, batch {number}"
            inputs, raw = read_batch(item, where=here)
            n = batch_size(inputs)
            if n == 0:
                continue
            target = self._target(raw, n, here)
            left = n if self.limit is None else min(n, self.limit - items)
            items += left
            yield map_inputs(inputs, lambda t, k=left: t[:k]), target[:left]  # type: ignore[misc]
            if items == self.limit:
                return
        if items == 0:
            raise DataError(f"{where} is empty", hint="it must yield batches, in every pass anew")

    def _pass(self, seed: int | None) -> Iterator[Any]:
        """What the loader yields, as many batches as it says it has."""
        loader: Iterable[Any] = self.source
        number, end = 0, sized(loader)
        try:
            begun = read_once(loader, seed) if isinstance(loader, DataLoader) else iter(loader)
            for item in islice(begun, end):
                number += 1
                yield item
        except PetraError:
            raise
        except Exception as error:
            raise _unreadable(f"{self.name} split, batch {number}", error) from error

    def _target(self, raw: Any, n: int, where: str) -> Tensor:
        target = self.reader(raw, where=where)
        if target.ndim == 0 or len(target) != n:
            got = "no batch axis" if target.ndim == 0 else f"{len(target)} entries"
            raise DataError(
                f"{where}: targets have {got} for {n} inputs", hint="give one target per item"
            )
        return target


def _unreadable(where: str, error: Exception) -> DataError:
    said = (str(error).strip().splitlines() or [""])[0]
    hint = "the data set itself fails there"
    if "stack expects each tensor" in said or "equal size" in said:
        hint = "all items must have one shape: pad or crop them"
    elif "default_collate" in said:
        hint = (
            "let the data set give tensors or arrays, or the loader have a collate_fn that makes"
            " them"
        )
    return DataError(f"{where}: reading it raised {type(error).__name__}: {said}", hint=hint)


def _without_single_last(batches: Iterator[Batch]) -> Iterator[Batch]:
    """All batches, the last one only if it has several items or no other came."""
    held = next(batches)
    alone = True
    for batch in batches:
        yield held
        held, alone = batch, False
    if alone or batch_size(held[0]) > 1:
        yield held
