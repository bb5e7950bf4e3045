"""Local search over legal pipelines, for what is cheap to ask and has no gradient in a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from petra.core.pipeline import Pipeline
from petra.space.encoding import Encoding
from petra.space.moves import Move
from petra.space.space import Space

Floats = NDArray[np.float64]
REACH = {"local": 0.6, "structural": 0.3, "global": 0.1}  # how often a move of each reach is made
BATCH = 200  # pipelines asked about at once


@dataclass(frozen=True, eq=False)
class Found:
    """A pipeline, its features, the trial where the walk to it began (None: at a random draw), and
    what it is worth.
    """

    pipeline: Pipeline
    features: Floats
    parent: int | None
    worth: float = -np.inf


class Walk:
    """Uphill by moves, from the front's neighbours and random draws.

    To a model, pipelines of the same features are the same one: none is considered whose features
    are `known`, nor a second one of the same.
    """

    def __init__(
        self,
        space: Space,
        moves: Sequence[Move],
        encoding: Encoding,
        known: Iterable[Floats],
        rng: np.random.Generator,
    ) -> None:
        """`moves` of other reaches than those in `REACH` are left out."""
        self._space, self._encoding, self._rng = space, encoding, rng
        self._seen = {features.tobytes() for features in known}
        self._moves = [m for m in moves if m.reach in REACH]
        held = [m.reach for m in self._moves]
        chances = np.array([REACH[reach] / held.count(reach) for reach in held])
        self._chances = chances / chances.sum()

    def best(
        self,
        worth: Callable[[Floats], Floats],
        front: Mapping[int, Pipeline],
        *,
        restarts: int,
        evaluations: int,
    ) -> Found | None:
        """The best pipeline met while asking `worth` (features (N, d), answers (N,)) about at most
        `evaluations`; None when there was no new one.

        The first `BATCH` are as many neighbours of the `front` (pipelines by trial number) as
        random draws; then the best `restarts` look at their neighbours, in turns, and each moves to
        the best of its own where that is better.
        """
        first = min(BATCH, evaluations)
        near = [number for _ in range(first) for number in front][: first // 2]
        met = [self._neighbour(front[n], n) for n in near]
        met += [self._new(self._space.sample(self._rng), None) for _ in range(first - len(near))]
        (valued,) = _valued([met], worth)
        heads = sorted(valued, key=lambda f: -f.worth)[:restarts]
        spent = first
        while heads and spent < evaluations:
            each = max(min(BATCH, evaluations - spent) // len(heads), 1)
            around = [[self._neighbour(h.pipeline, h.parent) for _ in range(each)] for h in heads]
            spent += each * len(heads)
            heads = [
                max([head, *group], key=lambda f: f.worth)
                for head, group in zip(heads, _valued(around, worth), strict=True)
            ]
        return max(heads, key=lambda f: f.worth, default=None)

    def _neighbour(self, pipeline: Pipeline, parent: int | None) -> Found | None:
        """A new pipeline one move away; None where the move drawn has nothing to do."""
        at = int(self._rng.choice(len(self._moves), p=self._chances))
        child = self._moves[at].child(pipeline, self._space, self._rng)
        return None if child is None else self._new(child, parent)

    def _new(self, pipeline: Pipeline, parent: int | None) -> Found | None:
        features = self._encoding.encode(pipeline)
        key = features.tobytes()
        if key in self._seen:
            return None
        self._seen.add(key)
        return Found(pipeline, features, parent)


def _valued(
    groups: Sequence[Sequence[Found | None]], worth: Callable[[Floats], Floats]
) -> list[list[Found]]:
    """The groups without what is missing, all asked about in one go."""
    there = [[f for f in group if f is not None] for group in groups]
    flat = [f.features for group in there for f in group]
    answers = iter(worth(np.stack(flat)) if flat else np.empty(0))
    return [[replace(f, worth=float(next(answers))) for f in group] for group in there]
