"""What each part of evolution is good for can be tried by switching it off."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_evolution import Watched, evolution

from petra.core.errors import ConfigError
from petra.core.measurement import Measurement
from petra.core.objective import Constraint, Objective
from petra.core.trial import Proposal, Trial
from petra.search.base import Problem
from petra.search.evolution import EvolutionOptions, EvolutionSearcher
from petra.space.table import MOVES
from petra.testing.search_suite import simulate
from petra.testing.toy import toy_baseline, toy_problem, toy_trial


@pytest.mark.parametrize("off", ["local", "global", "structural"])
def test_a_reach_that_is_switched_off_makes_no_child(off: str) -> None:
    searcher = evolution(**{f"{off}_moves": False})
    proposals = simulate(searcher, toy_trial, trials=120).proposals
    made = {MOVES.get(m).reach for p in proposals[8:] if p.origin.parent for m in p.origin.moves}
    assert made == {"local", "global", "structural"} - {off}
    with pytest.raises(ConfigError, match="got false for all of them"):
        EvolutionOptions(local_moves=False, global_moves=False, structural_moves=False)


def test_probabilities_stay_without_adaptation() -> None:
    searcher = evolution(adaptation=False)
    before = dict(searcher.adaptation.probabilities)
    simulate(searcher, toy_trial, trials=64)
    assert searcher.adaptation.probabilities == before


def test_a_generation_replaces_its_parents_at_once() -> None:
    def changed(succession: str) -> set[int]:
        """Numbers of proposals before which the population changed."""
        searcher = Watched(succession=succession)
        run = simulate(searcher, toy_trial, trials=96)
        return {
            n for n in range(20, len(run.trials)) if searcher.parents[n] != searcher.parents[n - 1]
        }

    assert {n % 4 for n in changed("generational")} == {0}
    assert {n % 4 for n in changed("steady")} == {0, 1, 2, 3}


def test_selection_without_constraints_keeps_what_violates_them() -> None:
    constraints = (Constraint.parse("quality >= baseline - 0.01"),)
    found = {}
    for switch in (True, False):
        options = EvolutionOptions(constraints=switch)
        problem = toy_problem(constraints=constraints)
        searcher = EvolutionSearcher(problem, toy_baseline(), options)
        run = simulate(searcher, lambda p: toy_trial(p, constraints=constraints), trials=120)
        trials = {0: toy_baseline(), **{t.number: t for t in run.trials}}
        found[switch] = max(searcher.scaling.violation(trials[n]) for n in searcher.population)
    assert found[True] == 0 < found[False]


def test_crowding_keeps_others_than_hypervolume() -> None:
    kept = []
    for selection in ("hypervolume", "crowding"):
        searcher = evolution(selection=selection)
        for trial in simulate(evolution(), toy_trial, trials=64).trials:
            searcher.restore(Proposal(trial.number, trial.pipeline))
            searcher.tell(trial)
        kept.append(searcher.population)
    assert kept[0] != kept[1]


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_it_selects_in_two_to_five_objectives(m: int) -> None:
    """Some metrics of the toy problem, squared: made up, and different."""
    names = ("quality", "latency_ratio", "size_bytes", "params", "macs")[:m]
    objectives = tuple(Objective(name, name == "quality") for name in names)

    def more(trial: Trial) -> Trial:
        if not trial.measured:
            return trial
        first, second = (trial.metrics[name].mean for name in ("latency_ratio", "size_bytes"))
        made = {"params": Measurement(second**0.5 + first), "macs": Measurement(first**2)}
        return replace(trial, metrics={**trial.metrics, **made})

    baseline = more(toy_baseline())
    searcher = EvolutionSearcher(
        Problem(toy_problem().space, objectives), baseline, EvolutionOptions()
    )
    run = simulate(searcher, lambda p: more(toy_trial(p)), trials=80)
    numbers = {n for p in run.proposals for n in p.told}
    told = [baseline, *(t for t in run.trials if t.number in numbers)]
    assert searcher.archive.volume == pytest.approx(searcher.scaling.hypervolume(told), rel=1e-9)
    assert len(searcher.population) == searcher.options.population
