"""A domain of a few numbers in their order: sizes that double, ranks, counts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from petra.core.pipeline import Value, canonical_value
from petra.space.domains import Domain


@dataclass(frozen=True)
class Ladder(Domain):
    """One of some numbers (all of one type), ascending: 0, 1, 3, 6, 12, ..., whose places count and
    not their distances.

    Encoded as one number, the value's place from 0, the first, to 1, the last, so that a model
    learns of a size from those beside it, which it does not of a `Choice`. A step goes to a place
    nearby, in two cases of three the next.
    """

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        values = tuple(map(canonical_value, self.values))
        kinds = {type(v) for v in values}
        if not values or len(kinds) > 1 or kinds & {bool, str}:
            raise ValueError(f"a Ladder is made of numbers of one type, not {self}")
        if any(float(a) >= float(b) for a, b in itertools.pairwise(values)):
            raise ValueError(f"a Ladder ascends: {self}")
        object.__setattr__(self, "values", values)

    def sample(self, rng: np.random.Generator) -> Value:
        return self.values[int(rng.integers(len(self.values)))]

    def perturb(self, value: Value, rng: np.random.Generator, size: float = 1.0) -> Value:
        if len(self.values) == 1:
            return self.values[0]
        far = max(1, round(size * int(rng.geometric(2 / 3))))
        sign = 1 if rng.random() < 0.5 else -1
        last, at = len(self.values) - 1, self._place(value)
        moved = at + sign * far
        if not 0 <= moved <= last:
            moved = at - sign * far
        moved = min(max(moved, 0), last)
        if self.values[moved] == value:
            moved = at + 1 if at < last else at - 1
        return self.values[moved]

    def _place(self, value: Value) -> int:
        """Of the value, or of the nearest there is."""
        wanted = float(value)
        return min(range(len(self.values)), key=lambda i: abs(float(self.values[i]) - wanted))

    @property
    def width(self) -> int:
        return 1

    def encode(self, value: Value) -> tuple[float, ...]:
        last = len(self.values) - 1
        return (self._place(value) / last if last else 0.0,)

    def decode(self, numbers: Sequence[float]) -> Value:
        share = min(max(float(numbers[0]), 0.0), 1.0)
        return self.values[math.floor(share * (len(self.values) - 1) + 0.5)]

    def contains(self, value: object) -> bool:
        return any(type(v) is type(value) and v == value for v in self.values)

    def __str__(self) -> str:
        return "{" + " < ".join(map(str, self.values)) + "}"
