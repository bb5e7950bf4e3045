"""The laws every move obeys, as property-based pytest tests. Needs the packages of the ``dev``
extra.

For example::

    class TestMyMove(MoveSuite):
        moves = (MY_MOVE,)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petra.core.pipeline import Pipeline
from petra.space.moves import Move
from petra.space.space import Space
from petra.space.table import MOVES
from petra.testing.toy import toy_space

SEEDS = st.integers(0, 2**32 - 1)
_settings = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.filter_too_much],
)


class MoveSuite:
    """Subclass it under a name that begins with ``Test``; override `moves` and `space` to test
    others'.
    """

    moves: Sequence[Move] = MOVES.all()
    space: Space = toy_space()

    def _parent(self, seed: int) -> Pipeline:
        return self.space.sample(np.random.default_rng(seed))

    def _children(self, seed: int) -> list[tuple[Move, Pipeline, Pipeline]]:
        parent = self._parent(seed)
        made = [
            (move, move.apply(parent, self.space, np.random.default_rng(seed + 1)))
            for move in self.moves
        ]
        return [(move, parent, child) for move, child in made if child is not None]

    @_settings
    @given(seed=SEEDS)
    def test_children_are_legal_normalized_and_different(self, seed: int) -> None:
        for move, parent, child in self._children(seed):
            assert self.space.objection(child) == "", move.name
            assert self.space.normalize(child) == child, move.name
            assert child != parent, move.name

    @_settings
    @given(seed=SEEDS)
    def test_the_generator_decides_everything(self, seed: int) -> None:
        assert self._children(seed) == self._children(seed)

    @_settings
    @given(seed=SEEDS)
    def test_parents_are_left_alone(self, seed: int) -> None:
        parent = self._parent(seed)
        before = parent.canonical()
        for move in self.moves:
            move.apply(parent, self.space, np.random.default_rng(seed))
        assert parent.canonical() == before

    @_settings
    @given(seed=SEEDS)
    def test_each_reaches_as_far_as_it_says(self, seed: int) -> None:
        for move, parent, child in self._children(seed):
            if move.reach == "structural":
                new = [s for s in child if s not in parent.stages]
                assert len(new) <= 1, f"{move.name} changed a stage it kept"
                assert not new or [s.kind for s in child] != [s.kind for s in parent], move.name
                continue
            assert [s.kind for s in child] == [s.kind for s in parent], move.name
            differing = [(a, b) for a, b in zip(parent, child, strict=True) if a != b]
            if move.reach == "local":
                assert len(differing) == 1, move.name
            else:
                _check_global(self.space, move, parent, child)

    def test_each_acts_somewhere(self) -> None:
        for move in self.moves:
            if move.concerns(self.space):
                acted = [
                    move.apply(self._parent(seed), self.space, np.random.default_rng(seed))
                    for seed in range(100)
                ]
                assert any(child is not None for child in acted), f"{move.name} never acts"

    def test_nothing_breaks_on_the_untouched_model(self) -> None:
        for move in self.moves:
            child = move.apply(Pipeline(), self.space, np.random.default_rng(0))
            assert child is None or self.space.is_legal(child)


def _check_global(space: Space, move: Move, parent: Pipeline, child: Pipeline) -> None:
    """One parameter of the scope now has one value wherever it was set and the value is allowed;
    nothing else moved, except what became active or inactive by it.
    """
    values = [
        [space.cards[stage.kind].values(stage) for stage in pair]
        for pair in zip(parent, child, strict=True)
    ]
    moved = {
        (name, after[name])
        for before, after in values
        for name in before.keys() & after.keys()
        if before[name] != after[name]
    }
    assert len(moved) == 1, f"{move.name} changed {sorted(map(str, moved))}"
    name, value = moved.pop()
    for stage, (before, after) in zip(child, values, strict=True):
        if name in before:
            declared = space.cards[stage.kind].parameter(name)
            assert declared is not None
            assert declared.scope == move.scope, f"{move.name} changed {stage.kind}.{name}"
            assert after[name] == value or not declared.limits.contains(value)
