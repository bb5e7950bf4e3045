"""The items of the splits: alike, finite, with targets that fit.

Training data is read as far as is cheap.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from petra.core.errors import DataError
from petra.core.interface import Interface
from petra.intake.behaviour import MANY, Probe, not_finite_input, run
from petra.tasks.base import Task
from petra.tasks.check import check_targets, items_not_finite
from petra.tasks.data import Batch, Split
from petra.tasks.inputs import Inputs, batch_size, map_inputs, named
from petra.tasks.pairs import check_structure
from petra.tasks.sources import sized

READ = 256
# Of a training split that is not in memory; the rest is looked at when training stumbles.
TRAIN_ITEMS = 2048
PATIENCE_S = 10.0  # for reading through a source that does not say how long it is
# Items with NaN or infinity in the inputs that the model is asked about, of each batch.
SUSPECTS = 16


def probe(split: Split) -> Probe:
    """Items to try the model on, from the beginning of the split."""
    inputs = split.head(MANY)
    items = batch_size(inputs)
    return Probe(split.name, map_inputs(inputs, lambda t: t[torch.arange(MANY) % items]), items)


class Inspector:
    """Holds items against a first batch and a prediction of the model, and tries the model on odd
    ones.
    """

    def __init__(
        self, task: Task, model: nn.Module, interface: Interface, tried: Inputs, width: Tensor
    ) -> None:
        """`tried` are inputs (n, ...) that the model was run on, `width` (1, ...) is a
        prediction.
        """
        self.task, self.model, self.interface, self.width = task, model, interface, width
        self._span = {
            name: (int(t.min()), int(t.max()))
            for name, t in named(tried).items()
            if _is_whole(t) and t.numel()
        }

    def inspect(self, split: Split, *, whole: bool) -> int:
        """Look at all items of a split if `whole` or in memory, else at some thousand.

        Returns the items of the smallest batch, without the last unless it is the only one. Raises
        DataError naming split and item. Costs a pass over the data, and a forward pass for each
        item whose inputs are not finite or hold integers, such as tokens, beyond those tried
        before.
        """
        items, sizes = 0, []
        for inputs, target in _patiently(
            split, None if whole or split.targets() is not None else TRAIN_ITEMS
        ):
            n = batch_size(inputs)
            last = f"s {items} to {items + n - 1}" if n > 1 else f" {items}"
            here = f"{split.name} split, item{last}"
            check_structure(inputs, self.interface, where=here)

            def place(i: int, start: int = items) -> str:
                return f"{split.name} split, item {start + i}"

            check_targets(self.task, target, self.width, place, where=here)
            for i in [*items_not_finite(inputs)[:SUSPECTS], *self._beyond(inputs)]:
                item = map_inputs(inputs, lambda t, i=i: t[i : i + 1])  # type: ignore[misc]
                self._try(map_inputs(item, torch.clone), place(i))
            items += n
            sizes.append(n)
        return min(sizes[:-1] or sizes)

    def _try(self, one: Inputs, where: str) -> None:
        output = run(self.model, one, where=where)
        if not torch.equal(output.isfinite(), self.width.isfinite()):
            raise not_finite_input(one, where)

    def _beyond(self, inputs: Inputs) -> list[int]:
        """Items with the least and the greatest integer of an input, where those are new."""
        found = []
        for name, t in named(inputs).items():
            if name in self._span and t.numel():
                rows, (low, high) = t.reshape(len(t), -1), self._span[name]
                least, most = rows.min(1).values, rows.max(1).values
                if int(least.min()) < low:
                    found.append(int(least.argmin()))
                if int(most.max()) > high:
                    found.append(int(most.argmax()))
                self._span[name] = (min(low, int(least.min())), max(high, int(most.max())))
        return found


def _is_whole(t: Tensor) -> bool:
    return not (t.is_floating_point() or t.is_complex() or t.dtype == torch.bool)


def _patiently(split: Split, most: int | None) -> Iterator[Batch]:
    """Batches of a split up to `most` items; one of unknown length is read to its end, which must
    come in time."""
    unsized = split.limit is None and sized(split.source) is None
    items, began = 0, time.monotonic()
    for batch in split.batches(READ):
        yield batch
        items += batch_size(batch[0])
        if unsized and time.monotonic() - began > PATIENCE_S:
            raise DataError(
                f"{split.name} split: no end after {items} items in {PATIENCE_S:.0f} s, and it has"
                " no length",
                hint=(
                    "say how much of it is one pass: petra.classification(..., limit=10_000), or"
                    " give it a __len__"
                ),
            )
        if most is not None and items >= most and not unsized:
            return
