"""Pipelines of a space as named choices made one after the other, for searchers that know nothing
of pipelines.

A pipeline is its `length`, the kinds of its stages ("stage 1", "stage 2", ...), and the parameters
of each: "prune.ratio" of the first stage of that kind, "prune.ratio (2)" of the second. Which
choices there are depends on those made before: what may follow what, and which parameters mean
anything. Names and domains do not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from petra.core.pipeline import Pipeline, StageSpec, Value, canonical_value
from petra.space.domains import Choice, Domain, Integer
from petra.space.parameters import Parameter
from petra.space.space import Space, StageCard

LENGTH = "length"
REDRAWS = 20  # draws of a kind of stage that may come next, before it is drawn uniformly

# The value of a choice, by its name and domain. May be asked again, for another draw.
Choose = Callable[[str, Domain], Value]


@dataclass(frozen=True)
class Choices:
    """The choices that make the pipelines of a space."""

    space: Space

    @property
    def length(self) -> Domain:
        return Integer(1, self.space.max_length)

    def kinds(self, position: int) -> Domain:
        """What the stage at `position`, from 1, may be at all."""
        space = self.space
        first = space.following(space.facts, "", last=space.max_length == 1)
        return Choice(tuple(first if position == 1 else sorted(space.cards)))

    def draw(self, choose: Choose, rng: np.random.Generator) -> Pipeline:
        """A legal pipeline by `choose`. A kind of stage that may not come next is drawn again and,
        when that does not help, uniformly by `rng`; where nothing may follow, the pipeline ends.
        """
        stages: list[StageSpec] = []
        facts, previous = self.space.facts, ""
        length = int(choose(LENGTH, self.length))
        while len(stages) < length:
            last = len(stages) + 1 == length
            options = self.space.following(facts, previous, last=last)
            if not options:
                break
            previous = self._kind(len(stages) + 1, options, choose, rng)
            card = self.space.cards[previous]
            facts = card.effects.after(facts)
            nth = 1 + sum(stage.kind == previous for stage in stages)
            stages.append(_drawn(card, nth, choose))
        return Pipeline(tuple(stages))

    def _kind(
        self, position: int, options: list[str], choose: Choose, rng: np.random.Generator
    ) -> str:
        for _ in range(REDRAWS):
            kind = choose(stage_name(position), self.kinds(position))
            if kind in options:
                return str(kind)
        return options[int(rng.integers(len(options)))]

    def made(self, pipeline: Pipeline) -> dict[str, tuple[Value, Domain]]:
        """The choices that make a pipeline, each with its domain: what `draw` was told, and of any
        other pipeline those of its values that lie in their domains.
        """
        found: dict[str, tuple[Value, Domain]] = {LENGTH: (len(pipeline), self.length)}
        seen: Counter[str] = Counter()
        for position, stage in enumerate(pipeline, 1):
            found[stage_name(position)] = (stage.kind, self.kinds(position))
            card = self.space.cards.get(stage.kind)
            if card is None:  # of a space that was another
                continue
            seen[stage.kind] += 1
            for p, value in _values(card, stage):
                found[parameter_name(stage.kind, p.name, seen[stage.kind])] = (value, p.domain)
        return {name: (value, d) for name, (value, d) in found.items() if d.contains(value)}


def stage_name(position: int) -> str:
    """The choice of the kind of a stage, counted from 1."""
    return f"stage {position}"


def parameter_name(kind: str, parameter: str, nth: int) -> str:
    """The choice of a parameter of the nth stage of a kind, counted from 1."""
    return f"{kind}.{parameter}" + (f" ({nth})" if nth > 1 else "")


def written(pipeline: Pipeline) -> dict[str, Value]:
    """The choices that make a pipeline as far as it says them itself, whatever its space."""
    found: dict[str, Value] = {LENGTH: len(pipeline)}
    seen: Counter[str] = Counter()
    for position, stage in enumerate(pipeline, 1):
        seen[stage.kind] += 1
        found[stage_name(position)] = stage.kind
        for name, value in stage.params.items():
            found[parameter_name(stage.kind, name, seen[stage.kind])] = value
    return found


def _values(card: StageCard, stage: StageSpec) -> Iterator[tuple[Parameter, Value]]:
    values = card.values(stage)
    return ((p, values[p.name]) for p in card.parameters if p.name in values)


def _drawn(card: StageCard, nth: int, choose: Choose) -> StageSpec:
    """A stage whose parameters are chosen in an order in which each comes after those that it
    depends on; those that mean nothing are not chosen.
    """
    values: dict[str, Value] = {}
    left = {p.name: p for p in card.parameters if not p.is_family}
    while left:
        ready = (p for p in left.values() if not left.keys() & p.depends_on)
        p = left.pop(next(ready, next(iter(left.values()))).name)
        if p.active(values):
            values[p.name] = _within(
                p.domain, choose(parameter_name(card.name, p.name, nth), p.domain)
            )
    return card.normalize(values)


def _within(domain: Domain, value: Value) -> Value:
    """The value as pipelines spell it, which may be a little beyond the bound of an interval."""
    spelt = canonical_value(value)
    return spelt if domain.contains(spelt) else domain.decode(domain.encode(spelt))
