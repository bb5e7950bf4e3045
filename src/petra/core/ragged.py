"""Items of different length: how they are kept, and how they become batches.

One implementation, in NumPy, for everything that pads: training and stages in PyTorch, and the
measuring process, which has no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from petra.core.errors import ConfigError

Columns = dict[str, np.ndarray]

MASK_TYPES = ("bool", "int64", "float32")
PREDICTION_BATCH, BLOCK = 64, 512
"""Items predicted at once, after those of a block of so many, in their order, are sorted by length.
Predictions are compared on whole blocks, so that both sides see the same batches."""

SHORTEST = 3
"""The least length that models are traced at: one of 1 or 2 would be taken for a constant."""


@dataclass(frozen=True)
class Padding:
    """How items of different length are put into one batch.

    value: what stands behind the end of an item. axis: the axis of an item along which lengths
    differ; -1, the last, suits (channels, length) as well as (length,). mask, lengths: the names
    that the model has for these inputs, "" for one that it does not take. The mask, (n, length) of
    `mask_type`, is true, or 1, where there is data; lengths are (n,) int64.
    """

    value: float = 0.0
    axis: int = 0
    mask: str = ""
    lengths: str = ""
    mask_type: str = "bool"

    def __post_init__(self) -> None:
        if self.mask_type not in MASK_TYPES:
            raise ConfigError(
                f"padding: a mask of type {self.mask_type!r}", hint=f"one of {MASK_TYPES}"
            )
        if self.mask and self.mask == self.lengths:
            raise ConfigError(
                f"padding: {self.mask!r} is the name of mask and lengths", hint="give each its own"
            )


@dataclass(frozen=True)
class Ragged:
    """n items whose lengths differ.

    values: inputs that have the length, (sum of lengths, ...), item after item, the axis of the
    length first. items: inputs of one shape, (n, ...). lengths: (n,), all positive.
    """

    values: Mapping[str, np.ndarray]
    lengths: np.ndarray
    padding: Padding = Padding()
    items: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]])

    @cached_property
    def _longest_first(self) -> np.ndarray:
        return np.argsort(-self.lengths, kind="stable")

    def batch(self, index: np.ndarray, *, length: int | None = None) -> Columns:
        """The items of these numbers as arrays by input name, padded to the longest of them, or
        cropped and padded to `length`.
        """
        lengths = np.asarray(self.lengths[index])
        if length is not None:
            lengths = np.minimum(lengths, length)
        steps = np.arange(length or lengths.max())
        inside = steps < lengths[:, None]
        places = (self._starts[index][:, None] + steps)[inside]
        found: Columns = {}
        for name, values in self.values.items():
            padded = np.full((*inside.shape, *values.shape[1:]), self.padding.value, values.dtype)
            padded[inside] = values[places]
            axis = self.padding.axis + (self.padding.axis >= 0)
            found[name] = np.ascontiguousarray(np.moveaxis(padded, 1, axis))
        found |= {name: np.ascontiguousarray(column[index]) for name, column in self.items.items()}
        if self.padding.mask:
            found[self.padding.mask] = inside.astype(self.padding.mask_type)
        if self.padding.lengths:
            found[self.padding.lengths] = lengths.astype(np.int64)
        return found

    def head(self, n: int) -> Ragged:
        """The first `n` items."""
        steps = int(self.lengths[:n].sum())
        values = {name: array[:steps] for name, array in self.values.items()}
        items = {name: column[:n] for name, column in self.items.items()}
        return Ragged(values, self.lengths[:n], self.padding, items)

    def at_length(self, length: int, count: int) -> Columns:
        """A batch of `count` items of exactly this length: those at least so long, the nearest
        first and again from the beginning where there are too few, cropped.
        """
        enough = max(1, int((self.lengths >= length).sum()))
        nearest = self._longest_first[:enough][::-1]
        return self.batch(nearest[np.arange(count) % enough], length=length)

    def in_batches(self, most: int | None = None) -> Iterator[tuple[np.ndarray, Columns]]:
        """Numbers and arrays of the first `most` items (all by default), sorted by length within
        every `BLOCK`.
        """
        n = len(self) if most is None else min(most, len(self))
        for start in range(0, n, BLOCK):
            lengths = self.lengths[start : min(start + BLOCK, n)]
            order = start + np.argsort(lengths, kind="stable")
            for first in range(0, len(order), PREDICTION_BATCH):
                index = order[first : first + PREDICTION_BATCH]
                yield index, self.batch(index)


def stated_lengths(lengths: np.ndarray) -> tuple[int, int]:
    """Median and 95th percentile, each the length of an item."""
    median, long = np.percentile(lengths, [50, 95], method="higher")
    return int(median), int(long)


def by_length(
    order: np.ndarray, lengths: np.ndarray, size: int, random: np.random.Generator
) -> np.ndarray:
    """`order` rearranged so that batches of `size` hold items of similar length, in random order.

    Items are sorted within blocks of 16 batches; what is left over stays at the end.
    """
    whole = len(order) // size * size
    batches = []
    for start in range(0, whole, 16 * size):
        block = order[start : min(start + 16 * size, whole)]
        batches += np.split(block[np.argsort(lengths[block], kind="stable")], len(block) // size)
    mixed = [batches[i] for i in random.permutation(len(batches))]
    return np.concatenate([*mixed, order[whole:]]) if mixed else order
