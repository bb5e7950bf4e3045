"""Moves that make one pipeline of two. Without a partner (`Guide.partner`) they do nothing."""

from __future__ import annotations

import numpy as np

from petra.core.pipeline import Pipeline, Value
from petra.space.moves import NO_GUIDE, Guide, Move, changed, pick, shuffled
from petra.space.space import Space


def cross(
    pipeline: Pipeline, space: Space, rng: np.random.Generator, guide: Guide = NO_GUIDE
) -> Pipeline | None:
    """One-point crossover at the boundaries of stages: the first stages of a parent, then the last
    ones of its partner. Uniform among the cuts whose children are legal and equal neither.
    """
    partner = guide.partner
    if partner is None:
        return None
    cuts = [(i, j) for i in range(len(pipeline) + 1) for j in range(len(partner) + 1)]
    for i, j in shuffled(rng, cuts):
        child = Pipeline((*pipeline.stages[:i], *partner.stages[j:]))
        if child.stages and space.is_legal(child) and child not in (pipeline, partner):
            return child
    return None


def blend(
    pipeline: Pipeline, space: Space, rng: np.random.Generator, guide: Guide = NO_GUIDE
) -> Pipeline | None:
    """Uniform crossover of the values of one stage that both parents have: each parameter in which
    they differ takes the partner's value with probability one half, one of them at least.
    """
    partner = guide.partner
    if partner is None:
        return None
    for at in shuffled(rng, range(len(pipeline))):
        stage = pipeline.stages[at]
        own = space.cards[stage.kind].values(stage)
        for other in shuffled(rng, [s for s in partner if s.kind == stage.kind]):
            theirs = space.cards[other.kind].values(other)
            differing = [name for name in own if name in theirs and own[name] != theirs[name]]
            if not differing:
                continue
            one = pick(rng, differing)
            taken: dict[str, Value] = {
                name: theirs[name] for name in differing if name == one or rng.random() < 0.5
            }
            stages = list(pipeline.stages)
            stages[at] = changed(space, stage, taken)
            child = Pipeline(tuple(stages))
            if child != partner:
                return child
    return None


CROSS = Move(
    "cross",
    "recombining",
    cross,
    "the first stages of one parent, the last of another",
    guided=True,
)
BLEND = Move(
    "blend",
    "recombining",
    blend,
    "values of one stage from two parents that have it",
    guided=True,
)
