"""Pipelines as vectors of numbers, for searchers that fit models to what they have seen."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from petra.core.pipeline import Pipeline, StageSpec
from petra.space.space import Space

ABSENT = 0.5  # of numbers that mean nothing for a pipeline
MOST_REMEMBERED = 10_000  # stages


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
        self._pairs = {pair: i for i, pair in enumerate(combinations(self.kinds, 2))}
        self._start: dict[str, int] = {}  # of each kind's parameters
        at = len(self.kinds) + len(self._pairs)
        for kind in self.kinds:
            self._start[kind] = at
            at += space.cards[kind].width
        self._numbers: dict[StageSpec, NDArray[np.float64]] = {}

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, pipeline: Pipeline) -> NDArray[np.float64]:
        """Features (len(self),) of a normalized pipeline of the space. O(stages + length)."""
        found = np.full(len(self.names), ABSENT)
        found[: len(self.kinds)] = 0.0
        kinds = [stage.kind for stage in pipeline]
        first = sorted(set(kinds), key=kinds.index)
        for kind in first:
            found[self.kinds.index(kind)] = kinds.count(kind) / self.space.max_length
        for earlier, later in combinations(first, 2):
            straight = (earlier, later) in self._pairs
            pair = self._pairs[(earlier, later) if straight else (later, earlier)]
            found[len(self.kinds) + pair] = float(straight)
        for stage in pipeline:  # the last of a kind is what stays
            numbers = self._of(stage)
            start = self._start[stage.kind]
            found[start : start + len(numbers)] = numbers
        return found

    def _of(self, stage: StageSpec) -> NDArray[np.float64]:
        """The numbers of a stage's parameters, remembered: most pipelines share their stages."""
        if stage not in self._numbers:
            if len(self._numbers) >= MOST_REMEMBERED:
                self._numbers.clear()
            numbers: list[float] = []
            for p in self.space.cards[stage.kind].parameters:
                value = stage.params.get(p.name)
                absent = (ABSENT,) * p.domain.width
                numbers += absent if value is None else p.domain.encode(value)
            self._numbers[stage] = np.array(numbers)
        return self._numbers[stage]

    def _names(self) -> Iterator[str]:
        yield from self.kinds
        for one, other in combinations(self.kinds, 2):
            yield f"{one} before {other}"
        for kind in self.kinds:
            for p in self.space.cards[kind].parameters:
                width = p.domain.width
                for i in range(width):
                    yield f"{kind}.{p.name}" + (f"[{i}]" if width > 1 else "")
