"""Moves: how one pipeline becomes another.

The vocabulary of every search that walks through the space.

A move either returns a legal pipeline that differs from its parent, or None when it has nothing to
do there. All its choices come from the generator it is given. Parents are normalized pipelines (as
`Space.normalize` returns them); children then are normalized too: parameters that become meaningful
take their default, others drop out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from petra.core.pipeline import Pipeline, StageSpec, Value
from petra.space.parameters import Parameter
from petra.space.space import Space

T = TypeVar("T")
Reach = Literal["local", "structural", "global"]


@dataclass(frozen=True)
class Move:
    """A named move. `reach`: local (parameters of one stage), structural (which stages, in which
    order) or global (one parameter in all stages at once). `scope` is the parameter scope of a
    global move.
    """

    name: str
    reach: Reach
    apply: Callable[[Pipeline, Space, np.random.Generator], Pipeline | None]
    doc: str
    scope: str = ""

    def concerns(self, space: Space) -> bool:
        """Whether it can ever act: a global move needs a stage with a parameter of its scope that
        can be changed.
        """
        if not self.scope:
            return True
        declared = [
            p for card in space.cards.values() for p in card.parameters if p.scope == self.scope
        ]
        # A domain returns the value it was given exactly when it has no other.
        return any(
            p.domain.perturb(p.default, np.random.default_rng(0)) != p.default for p in declared
        )


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _shuffled(rng: np.random.Generator, options: Sequence[T]) -> list[T]:
    return [options[int(i)] for i in rng.permutation(len(options))]


def _spliced(pipeline: Pipeline, start: int, stop: int, *stages: StageSpec) -> Pipeline:
    return Pipeline((*pipeline.stages[:start], *stages, *pipeline.stages[stop:]))


def _changed(space: Space, stage: StageSpec, changes: Mapping[str, Value]) -> StageSpec:
    return space.cards[stage.kind].settled({**stage.params, **changes})


def _active(space: Space, stage: StageSpec) -> Iterator[tuple[Parameter, Value]]:
    """Parameters that mean something, each with its value."""
    card = space.cards[stage.kind]
    values = card.values(stage)
    return ((p, values[p.name]) for p in card.parameters if p.name in values)


def add(pipeline: Pipeline, space: Space, rng: np.random.Generator) -> Pipeline | None:
    """Insert a stage: a kind uniformly among those that fit somewhere, then one of its places,
    parameters drawn.
    """
    places: dict[str, list[int]] = {}
    for name in sorted(space.cards):
        for at in range(len(pipeline) + 1):
            if space.is_legal(_spliced(pipeline, at, at, StageSpec(name))):
                places.setdefault(name, []).append(at)
    if not places:
        return None
    name = _pick(rng, list(places))
    at = _pick(rng, places[name])
    return _spliced(pipeline, at, at, space.cards[name].sample(rng))


def drop(pipeline: Pipeline, space: Space, rng: np.random.Generator) -> Pipeline | None:
    """Remove a stage. The last one stays: the untouched model is every study's trial 0."""
    if len(pipeline) < 2:
        return None
    children = [_spliced(pipeline, at, at + 1) for at in range(len(pipeline))]
    legal = [child for child in children if space.is_legal(child)]
    return _pick(rng, legal) if legal else None


def replace(pipeline: Pipeline, space: Space, rng: np.random.Generator) -> Pipeline | None:
    """Put a stage of another kind in the place of one, its parameters drawn."""
    for at in _shuffled(rng, range(len(pipeline))):
        others = [name for name in sorted(space.cards) if name != pipeline.stages[at].kind]
        fitting = [
            name
            for name in others
            if space.is_legal(_spliced(pipeline, at, at + 1, StageSpec(name)))
        ]
        if fitting:
            return _spliced(pipeline, at, at + 1, space.cards[_pick(rng, fitting)].sample(rng))
    return None


def swap(pipeline: Pipeline, space: Space, rng: np.random.Generator) -> Pipeline | None:
    """Exchange two stages, neighbours or not."""
    children = []
    for i in range(len(pipeline)):
        for j in range(i + 1, len(pipeline)):
            stages = list(pipeline.stages)
            stages[i], stages[j] = stages[j], stages[i]
            child = Pipeline(tuple(stages))
            if child != pipeline and space.is_legal(child):
                children.append(child)
    return _pick(rng, children) if children else None


def perturb(pipeline: Pipeline, space: Space, rng: np.random.Generator) -> Pipeline | None:
    """Take a small step in one parameter of one stage; in a second one three times in ten, and so
    on.
    """
    for at in _shuffled(rng, range(len(pipeline))):
        stage = pipeline.stages[at]
        wanted = int(rng.geometric(0.7))
        changes: dict[str, Value] = {}
        for p, value in _shuffled(rng, list(_active(space, stage))):
            moved = p.domain.perturb(value, rng)
            if moved != value:
                changes[p.name] = moved
            if len(changes) == wanted:
                break
        moved_stage = _changed(space, stage, changes)
        if moved_stage != stage:
            return _spliced(pipeline, at, at + 1, moved_stage)
    return None


def resample(pipeline: Pipeline, space: Space, rng: np.random.Generator) -> Pipeline | None:
    """Draw all parameters of one stage anew: the long jump that `perturb` cannot make."""
    for at in _shuffled(rng, range(len(pipeline))):
        drawn = space.cards[pipeline.stages[at].kind].sample(rng)
        if drawn != pipeline.stages[at]:
            return _spliced(pipeline, at, at + 1, drawn)
    return None


def _everywhere(
    scope: str, pipeline: Pipeline, space: Space, rng: np.random.Generator
) -> Pipeline | None:
    holders: dict[str, list[int]] = {}
    for at, stage in enumerate(pipeline):
        for p, _ in _active(space, stage):
            if p.scope == scope:
                holders.setdefault(p.name, []).append(at)
    for name in _shuffled(rng, sorted(holders)):
        lead = pipeline.stages[_pick(rng, holders[name])]
        declared = space.cards[lead.kind].parameter(name)
        assert declared is not None
        before = space.cards[lead.kind].values(lead)[name]
        value = declared.domain.perturb(before, rng)
        if value == before:
            continue
        stages = list(pipeline.stages)
        for at in holders[name]:
            here = space.cards[stages[at].kind].parameter(name)
            if here is not None and here.limits.contains(value):
                stages[at] = _changed(space, stages[at], {name: value})
        return Pipeline(tuple(stages))
    return None


def change_optimizer(pipeline: Pipeline, space: Space, rng: np.random.Generator) -> Pipeline | None:
    """Step one parameter of scope ``optimizer`` and set it in all stages that have it and allow the
    value.
    """
    return _everywhere("optimizer", pipeline, space, rng)


def change_loss(pipeline: Pipeline, space: Space, rng: np.random.Generator) -> Pipeline | None:
    """Step one parameter of scope ``loss`` and set it in all stages that have it and allow the
    value.
    """
    return _everywhere("loss", pipeline, space, rng)


ADD = Move("add", "structural", add, "insert a stage")
DROP = Move("drop", "structural", drop, "remove a stage")
REPLACE = Move("replace", "structural", replace, "put another kind of stage in the place of one")
SWAP = Move("swap", "structural", swap, "exchange two stages")
PERTURB = Move("perturb", "local", perturb, "take a small step in a few parameters of one stage")
RESAMPLE = Move("resample", "local", resample, "draw the parameters of one stage anew")
OPTIMIZER = Move(
    "optimizer",
    "global",
    change_optimizer,
    "change the optimizer in all stages at once",
    scope="optimizer",
)
LOSS = Move("loss", "global", change_loss, "change the loss in all stages at once", scope="loss")
