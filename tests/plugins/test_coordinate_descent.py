"""The plugin keeps the promises of searchers, descends, and runs in a study under its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from coordinate_descent import CoordinateDescent
from torch import nn

import petra
from petra.api import create_or_continue
from petra.config import parse_config
from petra.core.trial import Trial
from petra.search.base import Problem, Searcher
from petra.search.table import SEARCHERS, make_searcher
from petra.space.space import Space
from petra.testing.recorded import RecordedExecutor
from petra.testing.search_suite import SearcherSuite, simulate
from petra.testing.toy import CARDS, OBJECTIVES, toy_baseline, toy_problem, toy_trial


class TestCoordinateDescent(SearcherSuite):
    def make(self, problem: Problem, baseline: Trial) -> Searcher:
        return CoordinateDescent(problem, baseline)


def test_it_descends_further_than_random_draws() -> None:
    """Of values: which stages there are, and their order, it does not change."""
    cards = {card.name: card for card in CARDS if card.name in ("prune", "distill")}
    gain = []
    for seed in range(16):
        problem, baseline = Problem(Space(cards, 1), OBJECTIVES, seed=seed), toy_baseline()
        searcher = CoordinateDescent(problem, baseline)
        drawn = simulate(make_searcher("uniform", {}, problem, baseline), toy_trial, trials=80)
        found = simulate(searcher, toy_trial, trials=80)
        least = [
            min(searcher.score(t) for t in run.trials if t.measured)[1] for run in (drawn, found)
        ]
        gain.append(least[0] - least[1])
    assert np.mean(gain) > 2 * float(np.std(gain, ddof=1)) / len(gain) ** 0.5, gain


def test_every_step_is_along_one_coordinate() -> None:
    problem = toy_problem()
    run = simulate(CoordinateDescent(problem, toy_baseline()), toy_trial, trials=60)
    pipelines = {p.number: p.pipeline for p in run.proposals}
    steps = [p for p in run.proposals if p.origin.moves == ("coordinate",)]
    assert len(steps) > 20
    for p in steps:
        assert p.origin.parent is not None
        parent = pipelines[p.origin.parent]
        pairs = list(zip(parent, p.pipeline, strict=True))
        assert [a.kind for a, _ in pairs] == [b.kind for _, b in pairs]
        assert sum(a != b for a, b in pairs) == 1


@pytest.fixture
def registered() -> Iterator[None]:
    SEARCHERS.register("coordinate", CoordinateDescent)
    yield
    SEARCHERS.forget("coordinate")


@pytest.mark.usefixtures("registered")
def test_a_study_names_it(tmp_path: Path) -> None:
    x, y = torch.randn(40, 6), torch.randint(0, 3, (40,))
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    config = parse_config(
        {
            "search": {"name": "coordinate", "draws": 4},
            "space": {"recipes": False},
            "budget": {"trials": 24},
            "workdir": str(tmp_path),
        }
    )
    task = petra.classification((x, y), (x, y), (x, y))
    done = create_or_continue(config, model, task).run(executor=RecordedExecutor)
    moves = [t.origin.moves for t in done.trials]
    assert moves[1:5] == [("draw",)] * 4
    assert ("coordinate",) in moves[5:]
