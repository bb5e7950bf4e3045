"""Moves: how one pipeline becomes another.

The vocabulary of every search that walks through the space.

A move either returns a legal pipeline that differs from its parent, or None when it has nothing to
do there. All its choices come from the generator it is given. Parents are normalized pipelines (as
`Space.normalize` returns them); children then are normalized too: parameters that become meaningful
take their default, others drop out.

What a search knows that a move may use is a `Guide`: a second parent, and how long steps should be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np

from petra.core.pipeline import Pipeline, StageSpec, Value
from petra.space.parameters import Parameter
from petra.space.space import Space

T = TypeVar("T")
Reach = Literal["local", "structural", "global", "recombining"]


@dataclass(frozen=True)
class Guide:
    """What a search tells those moves that listen: a `partner`, without which nothing is
    recombined, and for each scope of parameters how many times as long as usual steps are.
    """

    partner: Pipeline | None = None
    steps: Mapping[str, float] = field(default_factory=dict)

    def step(self, parameter: Parameter, value: Value, rng: np.random.Generator) -> Value:
        """Another value of the parameter, a step away."""
        return parameter.domain.perturb(value, rng, self.steps.get(parameter.scope, 1.0))


NO_GUIDE = Guide()


@dataclass(frozen=True)
class Move:
    """A named move. `reach`: local (parameters of one stage), structural (which stages, in which
    order), global (one parameter in all stages at once) or recombining (stages or values of two
    parents). `scope` is the parameter scope of a global move. `apply` of a `guided` move takes a
    `Guide` as well, as its last argument.
    """

    name: str
    reach: Reach
    apply: Callable[..., Pipeline | None]
    doc: str
    scope: str = ""
    guided: bool = False

    def child(
        self,
        parent: Pipeline,
        space: Space,
        rng: np.random.Generator,
        guide: Guide = NO_GUIDE,
    ) -> Pipeline | None:
        """What the move makes of a parent; None where it has nothing to do."""
        if self.guided:
            return self.apply(parent, space, rng, guide)
        return self.apply(parent, space, rng)

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


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def shuffled(rng: np.random.Generator, options: Sequence[T]) -> list[T]:
    return [options[int(i)] for i in rng.permutation(len(options))]


def spliced(pipeline: Pipeline, start: int, stop: int, *stages: StageSpec) -> Pipeline:
    return Pipeline((*pipeline.stages[:start], *stages, *pipeline.stages[stop:]))


def changed(space: Space, stage: StageSpec, changes: Mapping[str, Value]) -> StageSpec:
    return space.cards[stage.kind].settled({**stage.params, **changes})


def active(space: Space, stage: StageSpec) -> Iterator[tuple[Parameter, Value]]:
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
            if space.is_legal(spliced(pipeline, at, at, StageSpec(name))):
                places.setdefault(name, []).append(at)
    if not places:
        return None
    name = pick(rng, list(places))
    at = pick(rng, places[name])
    return spliced(pipeline, at, at, space.cards[name].sample(rng))


def drop(pipeline: Pipeline, space: Space, rng: np.random.Generator) -> Pipeline | None:
    """Remove a stage. The last one stays: the untouched model is every study's trial 0."""
    if len(pipeline) < 2:
        return None
    children = [spliced(pipeline, at, at + 1) for at in range(len(pipeline))]
    legal = [child for child in children if space.is_legal(child)]
    return pick(rng, legal) if legal else None


def replace(pipeline: Pipeline, space: Space, rng: np.random.Generator) -> Pipeline | None:
    """Put a stage of another kind in the place of one, its parameters drawn."""
    for at in shuffled(rng, range(len(pipeline))):
        others = [name for name in sorted(space.cards) if name != pipeline.stages[at].kind]
        fitting = [
            name
            for name in others
            if space.is_legal(spliced(pipeline, at, at + 1, StageSpec(name)))
        ]
        if fitting:
            return spliced(pipeline, at, at + 1, space.cards[pick(rng, fitting)].sample(rng))
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
    return pick(rng, children) if children else None


def perturb(
    pipeline: Pipeline, space: Space, rng: np.random.Generator, guide: Guide = NO_GUIDE
) -> Pipeline | None:
    """Take a small step in one parameter of one stage; in a second one three times in ten, and so
    on.
    """
    for at in shuffled(rng, range(len(pipeline))):
        stage = pipeline.stages[at]
        wanted = int(rng.geometric(0.7))
        changes: dict[str, Value] = {}
        for p, value in shuffled(rng, list(active(space, stage))):
            moved = guide.step(p, value, rng)
            if moved != value:
                changes[p.name] = moved
            if len(changes) == wanted:
                break
        moved_stage = changed(space, stage, changes)
        if moved_stage != stage:
            return spliced(pipeline, at, at + 1, moved_stage)
    return None


def resample(pipeline: Pipeline, space: Space, rng: np.random.Generator) -> Pipeline | None:
    """Draw all parameters of one stage anew: the long jump that `perturb` cannot make."""
    for at in shuffled(rng, range(len(pipeline))):
        drawn = space.cards[pipeline.stages[at].kind].sample(rng)
        if drawn != pipeline.stages[at]:
            return spliced(pipeline, at, at + 1, drawn)
    return None


ADD = Move("add", "structural", add, "insert a stage")
DROP = Move("drop", "structural", drop, "remove a stage")
REPLACE = Move("replace", "structural", replace, "put another kind of stage in the place of one")
SWAP = Move("swap", "structural", swap, "exchange two stages")
PERTURB = Move(
    "perturb", "local", perturb, "take a small step in a few parameters of one stage", guided=True
)
RESAMPLE = Move("resample", "local", resample, "draw the parameters of one stage anew")
