"""What the surrogate-ranked search does beyond the promises of every searcher."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from petra.core.measurement import Measurement
from petra.core.objective import Constraint, Objective
from petra.core.pipeline import Pipeline
from petra.core.trial import Failure, Proposal, Trial, TrialStatus
from petra.search.base import Problem
from petra.search.scaling import scale
from petra.search.surrogate.searcher import SurrogateOptions, SurrogateSearcher
from petra.space.domains import Real
from petra.space.effects import Effects
from petra.space.parameters import Parameter
from petra.space.space import Space, StageCard
from petra.testing.search_suite import Evaluate, Run, failed, simulate
from petra.testing.toy import OBJECTIVES, toy_baseline, toy_problem, toy_trial

FEW = SurrogateOptions(candidates=30, rounds=1)


def surrogate(
    problem: Problem | None = None, baseline: Trial | None = None, **options: int | bool
) -> SurrogateSearcher:
    settings = replace(FEW, **options)  # type: ignore[arg-type]
    return SurrogateSearcher(problem or toy_problem(), baseline or toy_baseline(), settings)


def volume(run: Run, problem: Problem) -> float:
    return scale(problem.objectives, problem.constraints, toy_baseline()).hypervolume(run.trials)


def test_it_finds_more_than_as_many_draws() -> None:
    problem = toy_problem()
    run = simulate(surrogate(), toy_trial, trials=40)
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        draws = [Proposal(i + 1, problem.space.sample(rng)) for i in range(40)]
        found.append(volume(Run(draws, [toy_trial(p) for p in draws]), problem))
    assert volume(run, problem) > np.mean(found)


def test_ten_in_flight_are_ten_different_ideas() -> None:
    """What is under way counts as known, so that a batch is no cloud around one pipeline."""
    searcher = surrogate(explore=0)
    run = simulate(searcher, toy_trial, trials=24, virtual=10)
    last = searcher.memory.table([p.pipeline for p in run.proposals[-10:]]).features
    apart = [np.abs(a - b).max() for i, a in enumerate(last) for b in last[:i]]
    assert min(apart) > 0


def test_failures_teach() -> None:
    """Where half of the space always fails, most proposals soon come from the other half."""

    def evaluate(proposal: Proposal) -> Trial:
        if any(stage.kind == "prune" for stage in proposal.pipeline):
            return failed(proposal)
        return toy_trial(proposal)

    run = simulate(surrogate(), evaluate, trials=32)
    late = run.trials[16:]
    assert sum(t.status is TrialStatus.FAILED for t in late) < len(late) / 3


def test_constraints_are_met_more_often_than_by_chance() -> None:
    bounds = (Constraint.parse("quality >= baseline - 0.1"), Constraint.parse("size <= 400 kB"))
    problem = toy_problem(constraints=bounds)
    run = simulate(surrogate(problem), lambda p: toy_trial(p, constraints=bounds), trials=32)
    feasible = [t.status is TrialStatus.COMPLETE for t in run.trials]
    assert np.mean(feasible[16:]) > 0.3  # of random pipelines 12% are


def test_a_constrained_metric_that_is_no_objective_is_predicted_too() -> None:
    bound = Constraint.parse("macs <= 0.5 * baseline")
    baseline = toy_baseline()
    baseline = replace(baseline, metrics={**baseline.metrics, "macs": Measurement(1e6)})

    def evaluate(proposal: Proposal) -> Trial:
        trial = toy_trial(proposal)
        if not trial.measured:
            return trial
        macs = Measurement(1e6 * 0.7 ** sum(s.kind == "prune" for s in proposal.pipeline))
        status = TrialStatus.COMPLETE if macs.mean <= 5e5 else TrialStatus.INFEASIBLE
        return replace(trial, status=status, metrics={**trial.metrics, "macs": macs})

    problem = Problem(toy_problem().space, OBJECTIVES, (bound,))
    run = simulate(surrogate(problem, baseline), evaluate, trials=24)
    assert any(t.status is TrialStatus.COMPLETE for t in run.trials[12:])


def test_costs_of_trials_that_were_not_trained_teach_and_their_quality_does_not() -> None:
    searcher = surrogate()
    proposal = searcher.ask()
    assert proposal is not None
    metrics = {"size_bytes": Measurement(5e5), "quality": Measurement(0.1)}
    failure = Failure("screen", "size", "too large")
    searcher.tell(proposal.ended(TrialStatus.TIMED_OUT, metrics=metrics, failure=failure))
    quality, latency, size = searcher.memory.values[-1]
    assert quality is None
    assert latency is None
    assert size is not None


def continuous(width: int, objectives: int) -> tuple[Problem, Trial, Evaluate]:
    """A stage of `width` numbers; objective i is the distance from corner i."""
    unit = Real(0.0, 1.0)
    card = StageCard(
        "point", tuple(Parameter(f"x{i}", 0.5, unit, unit, "") for i in range(width)), Effects()
    )
    names = [f"f{i}" for i in range(objectives)]

    def metrics(values: np.ndarray) -> dict[str, Measurement]:
        return {n: Measurement(float(v)) for n, v in zip(names, values, strict=True)}

    def evaluate(proposal: Proposal) -> Trial:
        x = np.array([float(v) for v in proposal.pipeline.stages[0].params.values()])
        goals = np.eye(max(width, objectives))[:objectives, :width]
        return proposal.ended(
            TrialStatus.COMPLETE, metrics=metrics(((x - goals) ** 2).mean(axis=1))
        )

    problem = Problem(Space({"point": card}, 1), tuple(Objective(n, False) for n in names))
    baseline = Trial(0, Pipeline(), TrialStatus.COMPLETE, metrics=metrics(np.full(objectives, 0.3)))
    return problem, baseline, evaluate


@pytest.mark.parametrize("objectives", [1, 2, 4, 5])
def test_any_number_of_objectives(objectives: int) -> None:
    problem, baseline, evaluate = continuous(6, objectives)
    run = simulate(surrogate(problem, baseline), evaluate, trials=24)
    scaling = scale(problem.objectives, (), baseline)
    assert scaling.hypervolume(run.trials) > scaling.hypervolume(run.trials[:5])


def test_steps_become_short_where_only_short_ones_help() -> None:
    problem, baseline, evaluate = continuous(3, 1)
    searcher = surrogate(problem, baseline, explore=0)
    run = simulate(searcher, evaluate, trials=48)
    best = min(t.metrics["f0"].mean for t in run.trials)
    assert best < 1e-3
    assert searcher.steps.steps[""] < 1


def test_an_objective_that_never_changes_is_survived() -> None:
    problem, baseline, evaluate = continuous(4, 2)

    def constant(proposal: Proposal) -> Trial:
        trial = evaluate(proposal)
        return replace(trial, metrics={**trial.metrics, "f1": Measurement(0.3)})

    assert len(simulate(surrogate(problem, baseline), constant, trials=24).trials) == 24


def test_nothing_in_the_region_of_interest_yet() -> None:
    """All costs are beyond the reference: the search still goes downhill."""
    problem, baseline, evaluate = continuous(4, 2)
    near = replace(baseline, metrics={n: Measurement(1e-4) for n in ("f0", "f1")})
    run = simulate(surrogate(problem, near, explore=0), evaluate, trials=40)
    sums = [sum(m.mean for m in t.metrics.values()) for t in run.trials]
    assert np.mean(sums[-10:]) < np.mean(sums[:10])


@pytest.mark.parametrize(
    "switch", ["recombine", "adapt_steps", "spare_duplicates"], ids=lambda s: f"no {s}"
)
def test_each_part_can_be_switched_off(switch: str) -> None:
    run = simulate(surrogate(**{switch: False}), toy_trial, trials=16)
    made = {move for p in run.proposals for move in p.origin.moves}
    assert len(run.trials) == 16
    if switch == "recombine":
        assert not made & {"cross", "blend"}


def test_one_proposal_in_eight_is_evolution_s() -> None:
    searcher = surrogate()
    for _ in range(7):
        proposal = searcher.ask()
        assert proposal is not None
    rng = np.random.default_rng(0)
    expected = searcher.evolution.suggest(np.random.default_rng(0))
    assert searcher.number == 8
    assert searcher.suggest(rng) == expected


def test_the_model_is_made_of_a_few_hundred_trials_at_most() -> None:
    """The best, the latest and some of the others; so a proposal costs the same at any number."""
    memory = surrogate().memory
    rng = np.random.default_rng(0)
    for number in range(1, 700):
        memory.add(toy_trial(Proposal(number, memory.encoding.space.sample(rng))))
        assert len(memory.used()) <= 350, number
    assert len(memory) == 700
    sizes = np.array([v[2][0] if v[2] else np.inf for v in memory.values])
    assert int(sizes.argmin()) in memory.used()
    assert 699 in memory.used()
