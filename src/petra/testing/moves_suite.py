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
from petra.space.moves import NO_GUIDE, Guide, Move
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

    def _guide(self, seed: int) -> Guide:
        """A second parent, and steps that are not the usual ones."""
        scopes = {p.scope for card in self.space.cards.values() for p in card.parameters}
        return Guide(self._parent(seed + 2), dict.fromkeys(scopes, 0.3))

    def _children(self, seed: int) -> list[tuple[Move, Pipeline, Pipeline]]:
        parent, guide = self._parent(seed), self._guide(seed)
        made = [
            (move, move.child(parent, self.space, np.random.default_rng(seed + 1), guide))
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
        parent, guide = self._parent(seed), self._guide(seed)
        before = parent.canonical(), repr(guide)
        for move in self.moves:
            move.child(parent, self.space, np.random.default_rng(seed), guide)
        assert (parent.canonical(), repr(guide)) == before

    @_settings
    @given(seed=SEEDS)
    def test_each_reaches_as_far_as_it_says(self, seed: int) -> None:
        for move, parent, child in self._children(seed):
            if move.reach == "recombining":
                _check_recombined(self.space, move, (parent, self._parent(seed + 2)), child)
                continue
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
                    move.child(
                        self._parent(seed),
                        self.space,
                        np.random.default_rng(seed),
                        self._guide(seed),
                    )
                    for seed in range(100)
                ]
                assert any(child is not None for child in acted), f"{move.name} never acts"

    def test_nothing_breaks_on_the_untouched_model(self) -> None:
        for move in self.moves:
            for guide in (NO_GUIDE, self._guide(0)):
                child = move.child(Pipeline(), self.space, np.random.default_rng(0), guide)
                assert child is None or self.space.is_legal(child)

    def test_one_parent_alone_has_no_offspring(self) -> None:
        for move in self.moves:
            if move.reach == "recombining":
                rng = np.random.default_rng(0)
                assert move.child(self._parent(0), self.space, rng) is None, move.name


def _check_recombined(
    space: Space, move: Move, parents: tuple[Pipeline, Pipeline], child: Pipeline
) -> None:
    """The child is neither parent; each of its values is one that a parent has at such a stage, or
    the default of a parameter that another value made meaningful.
    """
    assert child not in parents, f"{move.name} gave a parent back"
    for stage in child:
        card = space.cards[stage.kind]
        likes = [card.values(s) for parent in parents for s in parent if s.kind == stage.kind]
        for name, value in card.values(stage).items():
            declared = card.parameter(name)
            assert declared is not None
            known = [like[name] for like in likes if name in like]
            if any(name not in like for like in likes):
                known.append(declared.default)
            assert value in known, f"{move.name} invented {stage.kind}.{name}"


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
