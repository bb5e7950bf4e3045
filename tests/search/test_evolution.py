"""What evolution does beyond the promises of every searcher."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from petra.core.errors import ConfigError
from petra.core.objective import Constraint
from petra.core.pipeline import Pipeline
from petra.core.trial import Proposal, Trial
from petra.search.adaptation import FLOOR, Adaptation
from petra.search.base import Problem, Searcher
from petra.search.evolution import EvolutionOptions, EvolutionSearcher
from petra.search.scaling import scale
from petra.search.table import make_searcher
from petra.space.moves import MOVES
from petra.space.space import Space
from petra.testing.search_suite import failed, recorded, simulate
from petra.testing.toy import CARDS, OBJECTIVES, toy_baseline, toy_problem, toy_trial


def evolution(seed: int = 0, **options: int | float) -> EvolutionSearcher:
    return EvolutionSearcher(toy_problem(seed=seed), toy_baseline(), EvolutionOptions(**options))


def final_volume(searcher: Searcher, generations: int) -> float:
    trials = [t for told in simulate(searcher, toy_trial, generations=generations) for t in told]
    return scale(OBJECTIVES, (), toy_baseline()).hypervolume([toy_baseline(), *trials])


def test_it_beats_random_search_at_equal_trials() -> None:
    seeds = range(10)
    gain = []
    for seed in seeds:
        problem, baseline = toy_problem(seed=seed), toy_baseline()
        evolved = final_volume(make_searcher("evolution", {"stagnation": 0}, problem, baseline), 25)
        gain.append(evolved - final_volume(make_searcher("uniform", {}, problem, baseline), 25))
    stderr = float(np.std(gain, ddof=1)) / len(gain) ** 0.5
    assert np.mean(gain) > 2 * stderr, gain


def test_the_first_generation_shows_every_kind_of_stage() -> None:
    for seed in range(10):
        first = evolution(seed).ask()
        assert len(first) == 8
        assert {s.kind for p in first for s in p.pipeline} == {c.name for c in CARDS}
        assert {p.origin.move for p in first} == {"initial"}


def test_children_come_from_the_population_by_the_named_moves() -> None:
    searcher = evolution()
    known = {0: toy_baseline().pipeline}
    for generation in range(12):
        parents = set(searcher.population)
        asked = searcher.ask()
        for p in asked if generation else ():
            if p.origin.parent is None:
                assert p.origin.move == "random"
                continue
            assert p.origin.parent in parents
            assert set(p.origin.move.split("+")) <= set(MOVES)
            if p.origin.move in ("perturb", "resample", "optimizer", "loss", "swap"):
                assert Counter(s.kind for s in p.pipeline) == Counter(
                    s.kind for s in known[p.origin.parent]
                )
        known.update((p.number, p.pipeline) for p in asked)
        searcher.tell([toy_trial(p) for p in asked])


def test_failed_trials_are_never_parents() -> None:
    searcher = evolution(stagnation=0)
    bad: set[int] = {0} - {0}
    for _ in range(12):
        asked = searcher.ask()
        assert not bad & {p.origin.parent for p in asked}
        trials = [recorded(p, failing=0.6) for p in asked]
        bad |= {t.number for t in trials if not t.measured}
        searcher.tell(trials)
        assert not bad & set(searcher.population)
    assert len(bad) > 20


def test_the_untouched_model_is_a_parent_while_nothing_else_works() -> None:
    searcher = evolution()
    searcher.tell([failed(p) for p in searcher.ask()])
    second = searcher.ask()
    assert searcher.population == (0,)
    assert {p.origin.parent for p in second} == {0}
    assert {p.origin.move.split("+")[0] for p in second} == {"add"}


def test_a_stage_that_always_fails_is_proposed_less_and_less() -> None:
    def allergic(proposal: Proposal) -> Trial:
        if any(s.kind == "factorize" for s in proposal.pipeline):
            trial = failed(proposal)
            assert trial.failure is not None
            failure = type(trial.failure)("factorize", "StageRefused", "cannot")
            return Trial(trial.number, trial.pipeline, trial.status, trial.origin, failure=failure)
        return toy_trial(proposal)

    def share(evaluate: object) -> float:
        assert callable(evaluate)
        late = [
            "factorize" in {s.kind for s in t.pipeline}
            for seed in range(4)
            for told in simulate(evolution(seed, stagnation=0), evaluate, generations=25)[10:]
            for t in told
        ]
        return sum(late) / len(late)

    assert share(allergic) < 0.05 < share(toy_trial)


def test_it_stops_when_nothing_improves_and_says_so() -> None:
    searcher = evolution(stagnation=3)
    history = simulate(searcher, failed, generations=20)
    assert len(history) == 4  # one to compare with, then three without progress
    assert searcher.stop_reason == "no progress in 3 generations"
    assert searcher.ask() == []


def test_it_does_not_stop_while_infeasible_trials_get_closer() -> None:
    constraints = (Constraint.parse("size <= 10 kB"),)  # out of reach: 20 kB are fixed
    problem = toy_problem(constraints=constraints)
    searcher = EvolutionSearcher(problem, toy_baseline(), EvolutionOptions(stagnation=5))
    sizes = [
        min(t.metrics["size_bytes"].mean for t in told if t.measured)
        for told in simulate(
            searcher, lambda p: toy_trial(p, constraints=constraints), generations=15
        )
    ]
    assert len(sizes) > 6
    assert min(sizes) < 50_000


def test_constraints_are_respected_by_the_population() -> None:
    constraints = (
        Constraint.parse("quality >= baseline - 0.05"),
        Constraint.parse("size <= 400 kB"),
    )
    problem = toy_problem(constraints=constraints)
    searcher = EvolutionSearcher(problem, toy_baseline(), EvolutionOptions(stagnation=0))
    history = simulate(searcher, lambda p: toy_trial(p, constraints=constraints), generations=30)
    trials = {t.number: t for told in history for t in told}
    assert 0 not in searcher.population, "the untouched model violates the size constraint"
    assert all(searcher.scaling.violation(trials[n]) == 0 for n in searcher.population)


def test_a_generation_must_be_told_whole_and_sorted() -> None:
    searcher = evolution()
    trials = [toy_trial(p) for p in searcher.ask()]
    with pytest.raises(RuntimeError, match="not been told"):
        searcher.ask()
    for wrong in (trials[:-1], trials[::-1], []):
        with pytest.raises(ValueError, match="sorted by number"):
            searcher.tell(wrong)
    searcher.tell(trials)
    assert searcher.ask()


def test_a_space_without_parameters_of_a_scope_has_no_such_move() -> None:
    plain = Space({c.name: c for c in CARDS if c.name in ("prune", "half")})
    searcher = EvolutionSearcher(Problem(plain, OBJECTIVES), toy_baseline())
    assert set(searcher.adaptation.probabilities) == set(MOVES) - {"optimizer", "loss"}


def test_parameter_moves_start_four_times_as_likely_as_structural_ones() -> None:
    start = evolution().adaptation.probabilities
    structural = sum(p for name, p in start.items() if MOVES[name].reach == "structural")
    assert sum(start.values()) == pytest.approx(1.0)
    assert (1 - structural) / structural == pytest.approx(4.0)


def test_probabilities_follow_success_and_never_reach_zero() -> None:
    adaptation = Adaptation({"good": 0.1, "bad": 0.8, "unused": 0.1})
    for _ in range(60):
        adaptation.update([("good", True)] * 3 + [("bad", False)] * 3)
        assert sum(adaptation.probabilities.values()) == pytest.approx(1.0)
    p = adaptation.probabilities
    assert p["good"] > p["unused"] > p["bad"] >= FLOOR
    for _ in range(60):
        adaptation.update([("good", False)] * 3 + [("bad", True)] * 3)
    assert adaptation.probabilities["bad"] > adaptation.probabilities["good"] >= FLOOR


def test_without_evidence_the_moves_even_out() -> None:
    adaptation = Adaptation({"a": 0.9, "b": 0.1})
    for _ in range(100):
        adaptation.update([])
    assert adaptation.probabilities == pytest.approx({"a": 0.5, "b": 0.5}, abs=1e-3)


def test_adaptation_depends_on_told_trials_only() -> None:
    runs = []
    for _ in range(2):
        searcher = evolution()
        simulate(searcher, toy_trial, generations=8)
        runs.append((searcher.adaptation.probabilities, searcher.population))
    assert runs[0] == runs[1]
    other = evolution()
    simulate(other, recorded, generations=8)
    assert other.adaptation.probabilities != runs[0][0]


def test_bad_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="population: got 0"):
        EvolutionOptions(population=0)


def test_baseline_pipeline_is_never_proposed_again() -> None:
    history = simulate(evolution(stagnation=0), recorded, generations=20)
    assert Pipeline() not in {t.pipeline for told in history for t in told}
