"""The plugin obeys the laws of moves, and the searchers that walk make it once it is registered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from centre_move import CENTRE

from petra.core.errors import ConfigError
from petra.search.evolution import EvolutionOptions, EvolutionSearcher
from petra.space.table import MOVES
from petra.testing.moves_suite import MoveSuite
from petra.testing.search_suite import simulate
from petra.testing.toy import toy_baseline, toy_problem, toy_trial


class TestCentre(MoveSuite):
    moves = (CENTRE,)


@pytest.fixture
def registered() -> Iterator[None]:
    MOVES.register(CENTRE.name, CENTRE)
    yield
    MOVES.forget(CENTRE.name)


def evolution() -> EvolutionSearcher:
    return EvolutionSearcher(toy_problem(), toy_baseline(), EvolutionOptions())


@pytest.mark.usefixtures("registered")
def test_evolution_makes_it_and_goes_on_without_it() -> None:
    run = simulate(evolution(), toy_trial, trials=120)
    used = [p for p in run.proposals if "centre" in p.origin.moves]
    assert used
    MOVES.forget(CENTRE.name)
    rest = simulate(evolution(), toy_trial, trials=200, before=run)
    assert rest.proposals[:120] == run.proposals
    assert not any("centre" in p.origin.moves for p in rest.proposals[120:])


@pytest.mark.usefixtures("registered")
def test_a_name_is_taken_once() -> None:
    with pytest.raises(ConfigError, match="move 'centre' is already registered"):
        MOVES.register(CENTRE.name, CENTRE)
