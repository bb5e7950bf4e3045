"""What evolution does beyond the promises of every searcher."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from petra.core.errors import ConfigError
from petra.core.objective import Constraint
from petra.core.pipeline import Pipeline
from petra.core.trial import Failure, Fidelity, Proposal, Trial, TrialStatus
from petra.moo.dominance import front_mask
from petra.search.adaptation import FLOOR, Adaptation
from petra.search.base import Problem, Searcher
from petra.search.evolution import EvolutionOptions, EvolutionSearcher
from petra.search.scaling import scale
from petra.search.table import make_searcher
from petra.space.space import Space
from petra.space.table import MOVES
from petra.testing.search_suite import failed, recorded, simulate
from petra.testing.toy import CARDS, OBJECTIVES, toy_baseline, toy_problem, toy_trial


def evolution(seed: int = 0, **options: int | float | str) -> EvolutionSearcher:
    return EvolutionSearcher(toy_problem(seed=seed), toy_baseline(), EvolutionOptions(**options))


def final_volume(searcher: Searcher, number: int) -> float:
    trials = simulate(searcher, toy_trial, trials=number).trials
    return scale(OBJECTIVES, (), toy_baseline()).hypervolume([toy_baseline(), *trials])


def test_it_beats_random_search_at_equal_trials() -> None:
    seeds = range(10)
    gain = []
    for seed in seeds:
        problem, baseline = toy_problem(seed=seed), toy_baseline()
        evolved = final_volume(make_searcher("evolution", {}, problem, baseline), 200)
        gain.append(evolved - final_volume(make_searcher("uniform", {}, problem, baseline), 200))
    stderr = float(np.std(gain, ddof=1)) / len(gain) ** 0.5
    assert np.mean(gain) > 2 * stderr, gain


def test_the_first_generation_shows_every_kind_of_stage() -> None:
    for seed in range(10):
        first = simulate(evolution(seed), toy_trial, trials=8).proposals
        assert {s.kind for p in first for s in p.pipeline} == {c.name for c in CARDS}
        assert {p.origin.moves for p in first} == {("initial",)}


class Watched(EvolutionSearcher):
    """Remembers what its population was when it proposed."""

    def __init__(self, **options: int | str) -> None:
        super().__init__(toy_problem(), toy_baseline(), EvolutionOptions(**options))
        self.parents: dict[int, set[int]] = {}

    def note(self, proposal: Proposal) -> None:
        super().note(proposal)
        self.parents[proposal.number] = set(self.population)


def test_children_come_from_the_population_by_the_named_moves() -> None:
    searcher = Watched()
    made = simulate(searcher, toy_trial, trials=96).proposals
    known = {0: toy_baseline().pipeline, **{p.number: p.pipeline for p in made}}
    for p in made[8:]:
        if p.origin.parent is None:
            assert p.origin.moves == ("random",)
            continue
        assert p.origin.parent in searcher.parents[p.number]
        assert set(p.origin.moves) <= set(MOVES)
        if set(p.origin.moves) <= {"perturb", "resample", "optimizer", "loss", "swap"}:
            assert Counter(s.kind for s in p.pipeline) == Counter(
                s.kind for s in known[p.origin.parent]
            )


def test_failed_trials_are_never_parents() -> None:
    searcher = Watched()
    run = simulate(searcher, lambda p: recorded(p, failing=0.6), trials=96)
    bad = {t.number for t in run.trials if not t.measured}
    assert len(bad) > 20
    assert not any(bad & parents for parents in searcher.parents.values())
    assert not bad & {p.origin.parent for p in run.proposals}


def test_a_trial_of_low_fidelity_is_no_parent() -> None:
    searcher = Watched()
    simulate(searcher, lambda p: replace(toy_trial(p), fidelity=Fidelity(data=0.5)), trials=40)
    assert searcher.population == (0,)


def test_the_untouched_model_is_a_parent_while_nothing_else_works() -> None:
    searcher = evolution()
    second = simulate(searcher, failed, trials=16).proposals[8:]
    assert searcher.population == (0,)
    assert {p.origin.parent for p in second} == {0}
    assert {p.origin.moves[0] for p in second} == {"add"}


def test_a_stage_that_always_fails_is_proposed_less_and_less() -> None:
    def allergic(proposal: Proposal) -> Trial:
        if any(s.kind == "factorize" for s in proposal.pipeline):
            trial = failed(proposal)
            assert trial.failure is not None
            return replace(trial, failure=replace(trial.failure, stage="factorize"))
        return toy_trial(proposal)

    def share(evaluate: object) -> float:
        assert callable(evaluate)
        late = [
            "factorize" in {s.kind for s in t.pipeline}
            for seed in range(4)
            for t in simulate(evolution(seed), evaluate, trials=200).trials[80:]
        ]
        return sum(late) / len(late)

    assert share(allergic) < 0.05 < share(toy_trial)


def test_constraints_are_respected_by_the_population() -> None:
    constraints = (
        Constraint.parse("quality >= baseline - 0.05"),
        Constraint.parse("size <= 400 kB"),
    )
    problem = toy_problem(constraints=constraints)
    searcher = EvolutionSearcher(problem, toy_baseline(), EvolutionOptions())
    run = simulate(searcher, lambda p: toy_trial(p, constraints=constraints), trials=240)
    trials = {t.number: t for t in run.trials}
    assert 0 not in searcher.population, "the untouched model violates the size constraint"
    assert all(searcher.scaling.violation(trials[n]) == 0 for n in searcher.population)


def test_a_result_is_told_once_and_only_of_what_was_proposed() -> None:
    searcher = evolution()
    first = searcher.ask()
    assert first is not None
    trial = toy_trial(first)
    for wrong in (replace(trial, number=2), replace(trial, pipeline=Pipeline())):
        with pytest.raises(ValueError, match="was not proposed"):
            searcher.tell(wrong)
    searcher.tell(trial)
    with pytest.raises(ValueError, match="told already"):
        searcher.tell(trial)


def test_the_front_it_keeps_is_that_of_all_trials() -> None:
    searcher = evolution()
    run = simulate(searcher, recorded, trials=300)
    numbers = {n for p in run.proposals for n in p.told}
    told = [toy_baseline(), *(t for t in run.trials if t.number in numbers)]
    usable = [t for t in told if searcher.scaling.usable(t)]
    costs = np.array([searcher.scaling.costs(t) for t in usable])
    front = {t.number for t, on in zip(usable, front_mask(costs), strict=True) if on}
    assert set(searcher.archive.members) == front


def test_asking_and_telling_do_not_grow_with_the_trials() -> None:
    """Counted, not timed: trials whose costs are looked at, and those that are kept."""
    looked: list[int] = []

    class Counting(EvolutionSearcher):
        def _judged(self, trial: Trial) -> tuple[np.ndarray, float]:
            looked.append(trial.number)
            return super()._judged(trial)

    searcher = Counting(toy_problem(), toy_baseline(), EvolutionOptions())
    run = simulate(searcher, toy_trial, trials=400)
    assert len(set(looked)) == len(looked) <= len(run.trials)
    assert len(searcher._kept) == searcher.options.population


def test_a_space_without_parameters_of_a_scope_has_no_such_move() -> None:
    plain = Space({c.name: c for c in CARDS if c.name in ("prune", "half")})
    searcher = EvolutionSearcher(Problem(plain, OBJECTIVES), toy_baseline())
    recombining = {m.name for m in MOVES.all() if m.reach == "recombining"}
    others = {"optimizer", "loss"} | recombining  # without crossover, as published
    assert set(searcher.adaptation.probabilities) == set(MOVES) - others


def test_parameter_moves_start_four_times_as_likely_as_structural_ones() -> None:
    start = evolution().adaptation.probabilities
    structural = sum(p for name, p in start.items() if MOVES.get(name).reach == "structural")
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
        simulate(searcher, toy_trial, trials=64)
        runs.append((searcher.adaptation.probabilities, searcher.population))
    assert runs[0] == runs[1]
    other = evolution()
    simulate(other, recorded, trials=64)
    assert other.adaptation.probabilities != runs[0][0]


def test_bad_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="population: got 0"):
        EvolutionOptions(population=0)


def test_baseline_pipeline_is_never_proposed_again() -> None:
    run = simulate(evolution(), recorded, trials=160)
    assert Pipeline() not in {t.pipeline for t in run.trials}


def test_what_is_screened_for_its_size_shows_where_feasible_models_are() -> None:
    """As much as if it had been measured: of what is infeasible, violations alone count, unless
    two are equal.
    """
    bound = Constraint.parse("size <= 250 kB")
    problem = replace(toy_problem(), constraints=(bound,))

    def measured(proposal: Proposal) -> Trial:
        trial = toy_trial(proposal, constraints=(bound,))
        size = trial.metrics.get("size_bytes")
        if size is None:
            return trial
        size = replace(size, mean=size.mean + proposal.number)  # no two are equal
        return replace(trial, metrics={**trial.metrics, "size_bytes": size})

    def screened(proposal: Proposal) -> Trial:
        trial = measured(proposal)
        if trial.status is not TrialStatus.INFEASIBLE:
            return trial
        size = {"size_bytes": trial.metrics["size_bytes"]}
        failure = Failure("screen", "constraint", "too large")
        return proposal.ended(TrialStatus.SCREENED, metrics=size, failure=failure)

    whole, part = (
        simulate(EvolutionSearcher(problem, toy_baseline()), evaluate, trials=80)
        for evaluate in (measured, screened)
    )
    assert any(t.status is TrialStatus.SCREENED for t in part.trials)
    assert whole.proposals == part.proposals
