"""What a model file is tried on: items that a person gives, or random ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from petra.core.interface import Interface
from petra.measure.given_inputs import given_inputs
from petra.measure.random_inputs import random_items
from petra.runtimes.base import Arrays


@dataclass(frozen=True)
class Feed:
    """Arrays for every input of an interface, with `items` items where it has a free batch."""

    interface: Interface
    arrays: Arrays
    items: int

    def take(self, start: int, count: int) -> Arrays:
        """A call with `count` items from `start`, wrapping around; a batch that is fixed as it
        is.
        """
        found = dict(self.arrays)
        for name, axis in self.interface.free_batch.items():
            where = np.arange(start, start + count) % self.items
            found[name] = np.take(self.arrays[name], where, axis=axis)
        return found


def make_feed(interface: Interface, items: int, *, given: str = "", seed: int = 0) -> Feed:
    """`items` random items, or all those in the .npz file `given`. Errors as theirs."""
    if not given:
        return Feed(interface, random_items(interface, items, seed=seed), items)
    arrays = given_inputs(Path(given), interface)
    sizes = [arrays[name].shape[axis] for name, axis in interface.free_batch.items()]
    return Feed(interface, arrays, sizes[0] if sizes else 1)
