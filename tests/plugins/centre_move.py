"""A move of a third party: one stage's numbers go halfway to the middle of their domains."""

from __future__ import annotations

import numpy as np

from petra.core.pipeline import Pipeline
from petra.space.moves import Move
from petra.space.space import Space


def centre(pipeline: Pipeline, space: Space, rng: np.random.Generator) -> Pipeline | None:
    """Choices stay as they are, and so does what is in the middle already."""
    for at in rng.permutation(len(pipeline)):
        stage = pipeline.stages[int(at)]
        card = space.cards[stage.kind]
        moved = card.decode([(number + 0.5) / 2 for number in card.encode(stage)])
        if moved != stage:
            stages = list(pipeline.stages)
            stages[int(at)] = moved
            return Pipeline(tuple(stages))
    return None


CENTRE = Move("centre", "local", centre, "take the numbers of one stage halfway to the middle")
