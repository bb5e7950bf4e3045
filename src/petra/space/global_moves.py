"""Moves that set one parameter in all stages of a pipeline at once."""

from __future__ import annotations

import numpy as np

from petra.core.pipeline import Pipeline
from petra.space.moves import NO_GUIDE, Guide, Move, active, changed, pick, shuffled
from petra.space.space import Space


def _everywhere(
    scope: str, pipeline: Pipeline, space: Space, rng: np.random.Generator, guide: Guide
) -> Pipeline | None:
    holders: dict[str, list[int]] = {}
    for at, stage in enumerate(pipeline):
        for p, _ in active(space, stage):
            if p.scope == scope:
                holders.setdefault(p.name, []).append(at)
    for name in shuffled(rng, sorted(holders)):
        lead = pipeline.stages[pick(rng, holders[name])]
        declared = space.cards[lead.kind].parameter(name)
        assert declared is not None
        before = space.cards[lead.kind].values(lead)[name]
        value = guide.step(declared, before, rng)
        if value == before:
            continue
        stages = list(pipeline.stages)
        for at in holders[name]:
            here = space.cards[stages[at].kind].parameter(name)
            if here is not None and here.limits.contains(value):
                stages[at] = changed(space, stages[at], {name: value})
        return Pipeline(tuple(stages))
    return None


def change_optimizer(
    pipeline: Pipeline, space: Space, rng: np.random.Generator, guide: Guide = NO_GUIDE
) -> Pipeline | None:
    """Step one parameter of scope ``optimizer`` and set it in all stages that have it and allow the
    value.
    """
    return _everywhere("optimizer", pipeline, space, rng, guide)


def change_loss(
    pipeline: Pipeline, space: Space, rng: np.random.Generator, guide: Guide = NO_GUIDE
) -> Pipeline | None:
    """Step one parameter of scope ``loss`` and set it in all stages that have it and allow the
    value.
    """
    return _everywhere("loss", pipeline, space, rng, guide)


OPTIMIZER = Move(
    "optimizer",
    "global",
    change_optimizer,
    "change the optimizer in all stages at once",
    scope="optimizer",
    guided=True,
)
LOSS = Move(
    "loss",
    "global",
    change_loss,
    "change the loss in all stages at once",
    scope="loss",
    guided=True,
)
