"""Pipelines worth a thought: children of good ones by moves of every kind and length, and draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from petra.core.pipeline import Pipeline
from petra.core.trial import Origin
from petra.search.base import RANDOM
from petra.search.steps import StepSizes
from petra.space.moves import Guide, Move
from petra.space.space import Space

# How often each reach is tried; shared evenly among the moves that have it.
REACH = {"local": 0.5, "global": 0.1, "structural": 0.25, "recombining": 0.15}
DRAWN = 0.2  # of the first candidates, drawn without a parent
STACKED = 0.3  # probability of one more move on top of the last
MOST_STACKED = 4
SHORTEST = 1 / 32  # steps are this share of the adapted ones to LONGEST times them
LONGEST = 2.0


@dataclass(frozen=True)
class Parent:
    """A pipeline to start from, and the number of its trial."""

    number: int
    pipeline: Pipeline


@dataclass(frozen=True)
class Candidate:
    """A pipeline and how it was made."""

    pipeline: Pipeline
    origin: Origin


class Candidates:
    """Makes candidates by `moves`, all their choices from the generator given."""

    def __init__(self, space: Space, moves: Sequence[Move], steps: StepSizes) -> None:
        self.space, self.steps = space, steps
        self.moves = {m.name: m for m in moves if m.concerns(space)}
        held = [m.reach for m in self.moves.values()]
        weights = np.array([REACH[m.reach] / held.count(m.reach) for m in self.moves.values()])
        self._names, self._upto = list(self.moves), np.cumsum(weights / weights.sum())

    def first(
        self,
        count: int,
        parents: Sequence[Parent],
        is_new: Callable[[Pipeline], bool],
        rng: np.random.Generator,
    ) -> list[Candidate]:
        """About `count` distinct ones, children of `parents` and draws."""
        made: dict[Pipeline, Origin] = {}
        for _ in range(count):
            if not parents or rng.random() < DRAWN:
                made.setdefault(self.space.sample(rng), RANDOM)
                continue
            parent = parents[int(rng.integers(len(parents)))]
            child = self.child(parent.pipeline, parents, rng)
            if child is not None:
                made.setdefault(child[0], Origin(child[1], parent.number))
        return [Candidate(p, origin) for p, origin in made.items() if is_new(p)]

    def further(
        self,
        count: int,
        best: Sequence[Candidate],
        parents: Sequence[Parent],
        is_new: Callable[[Pipeline], bool],
        rng: np.random.Generator,
    ) -> list[Candidate]:
        """About `count` distinct children of the `best` candidates so far: one more move each."""
        made: dict[Pipeline, Origin] = {}
        for i in range(count):
            base = best[i % len(best)]
            child = self.child(base.pipeline, parents, rng, most=1)
            if child is not None:
                drawn = base.origin == RANDOM
                moves = child[1] if drawn else (*base.origin.moves, *child[1])
                made.setdefault(child[0], Origin(moves, base.origin.parent))
        return [Candidate(p, origin) for p, origin in made.items() if is_new(p)]

    def child(
        self,
        pipeline: Pipeline,
        parents: Sequence[Parent],
        rng: np.random.Generator,
        *,
        most: int = MOST_STACKED,
    ) -> tuple[Pipeline, tuple[str, ...]] | None:
        """A pipeline some moves away, and their names; None where none can act."""
        names: list[str] = []
        while len(names) < most:
            at = min(int(np.searchsorted(self._upto, rng.random())), len(self._names) - 1)
            move = self.moves[self._names[at]]
            partner = parents[int(rng.integers(len(parents)))].pipeline if parents else None
            factor = float(np.exp(rng.uniform(np.log(SHORTEST), np.log(LONGEST))))
            guide = Guide(partner, self.steps.scaled(factor))
            moved = move.child(pipeline, self.space, rng, guide)
            if moved is not None:
                pipeline = moved
                names.append(move.name)
            elif rng.random() < 0.2:  # nothing acts here, or only what is hardly ever tried
                break
            if names and rng.random() >= STACKED:
                break
        return (pipeline, tuple(names)) if names else None
