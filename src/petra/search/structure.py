"""A space in two: which parts there are, and how large each is.

A *size* is a number drawn from a `Ladder` that begins with 0, and 0 means that there is no such
part. A *bit* is true or false. Kinds of stage, bits, and which sizes are 0 are a pipeline's
structure; all other values can be chosen once that is known (BIPEFT, Chang et al. 2024, arXiv
2410.09079).
"""

from __future__ import annotations

from dataclasses import replace

from petra.core.pipeline import Pipeline, StageSpec, Value
from petra.space.domains import Choice
from petra.space.ladder import Ladder
from petra.space.narrow import narrow
from petra.space.parameters import Parameter
from petra.space.space import Space, StageCard

Structure = tuple[tuple[str, tuple[tuple[str, bool], ...]], ...]
"""Of each stage its kind, and of its bits and sizes whether they are on."""


def is_size(parameter: Parameter) -> bool:
    """Whether it is a size: something that may be absent, or be of several sizes."""
    domain = parameter.domain
    return isinstance(domain, Ladder) and domain.values[0] == 0 and len(domain.values) > 2


def is_bit(parameter: Parameter) -> bool:
    domain = parameter.domain
    return isinstance(domain, Choice) and {type(v) for v in domain.values} == {bool}


def structure_of(space: Space, pipeline: Pipeline) -> Structure:
    """The structure of a normalized pipeline of the space. What means nothing is left out."""
    return tuple((stage.kind, tuple(_on(space.cards[stage.kind], stage))) for stage in pipeline)


def _on(card: StageCard, stage: StageSpec) -> list[tuple[str, bool]]:
    values = card.values(stage)
    switches = [p for p in card.parameters if p.name in values and (is_size(p) or is_bit(p))]
    return [(p.name, bool(values[p.name])) for p in switches]


def has_sizes(space: Space, structure: Structure) -> bool:
    """Whether some size of it is on, so that there is one to be chosen."""
    for kind, switches in structure:
        sized = {p.name for p in space.cards[kind].parameters if is_size(p)}
        if any(on and name in sized for name, on in switches):
            return True
    return False


def structures(space: Space) -> Space:
    """The part of a space in which structure alone is searched: each size is none or the middle
    one, and what is neither size nor bit is at its default.
    """
    cards = {}
    for name, card in space.cards.items():
        ranges: dict[str, list[Value]] = {}
        for p in card.parameters:
            if is_size(p):
                ranges[p.name] = [0, _middle(p)]
            elif not is_bit(p):
                ranges[p.name] = [p.default]
        cards[name] = narrow(card, ranges, where=name)
    return replace(space, cards=cards)


def _middle(parameter: Parameter) -> Value:
    """The middle of the sizes that are not none, of two the smaller."""
    assert isinstance(parameter.domain, Ladder)
    sizes = parameter.domain.values[1:]
    return sizes[(len(sizes) - 1) // 2]


def sizes(space: Space, structure: Structure) -> Space:
    """The part of a space with that structure: what is off stays off, what is on may have any size
    but none. A stage that comes twice is as it is where it comes last.
    """
    cards = {}
    for name, switches in structure:
        card = space.cards[name]
        ranges: dict[str, list[Value]] = {}
        for key, on in switches:
            p = card.parameter(key)
            assert p is not None
            if is_bit(p):
                ranges[key] = [on]
            else:
                assert isinstance(p.domain, Ladder)
                ranges[key] = list(p.domain.values[1:]) if on else [0]
        cards[name] = narrow(card, ranges, where=name)
    return replace(space, cards=cards, max_length=max(1, len(structure)))


def lies_in(space: Space, pipeline: Pipeline) -> bool:
    """Whether a normalized pipeline is legal in a part of its space, each value in its domain."""
    if not space.is_legal(pipeline):
        return False
    for stage in pipeline:
        card = space.cards[stage.kind]
        values = card.values(stage)
        if any(not p.domain.contains(values[p.name]) for p in card.parameters if p.name in values):
            return False
    return True
