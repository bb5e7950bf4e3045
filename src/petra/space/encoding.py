"""Pipelines as vectors of numbers, for searchers that fit models to what they have seen."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from petra.core.pipeline import Pipeline
from petra.space.space import Space

ABSENT = 0.5  # of numbers that mean nothing for a pipeline


class Encoding:
    """The features of pipelines of one space, each in [0, 1].

    How often each kind of stage occurs, as a share of the longest pipeline; for each pair of kinds
    which comes first (1: the one named first); and the parameters of the last stage of each kind,
    as `Domain.encode` has them. What a pipeline does not have is one half. Different pipelines may
    share a vector: earlier stages of the same kind count only by their number.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.kinds = tuple(sorted(space.cards))
        self.names = tuple(self._names())  # what each number means

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, pipeline: Pipeline) -> NDArray[np.float64]:
        """Features (len(self),) of a normalized pipeline of the space. O(stages + length)."""
        kinds = [stage.kind for stage in pipeline]
        first = {kind: kinds.index(kind) for kind in set(kinds)}
        last = {stage.kind: stage for stage in pipeline}
        numbers = [kinds.count(kind) / self.space.max_length for kind in self.kinds]
        for one, other in combinations(self.kinds, 2):
            both = one in first and other in first
            numbers.append(float(first[one] < first[other]) if both else ABSENT)
        for kind in self.kinds:
            stage = last.get(kind)
            for p in self.space.cards[kind].parameters:
                value = stage.params.get(p.name) if stage else None
                absent = (ABSENT,) * p.domain.width
                numbers += absent if value is None else p.domain.encode(value)
        return np.array(numbers)

    def _names(self) -> Iterator[str]:
        yield from self.kinds
        for one, other in combinations(self.kinds, 2):
            yield f"{one} before {other}"
        for kind in self.kinds:
            for p in self.space.cards[kind].parameters:
                width = p.domain.width
                for i in range(width):
                    yield f"{kind}.{p.name}" + (f"[{i}]" if width > 1 else "")
