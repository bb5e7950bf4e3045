"""When a search ends, and what of its time is kept for the final measurements."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from petra.config import parse_config
from petra.core.errors import ConfigError
from petra.core.objective import Constraint
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import Proposal, Trial
from petra.search.table import make_searcher
from petra.stopping import Stopping
from petra.testing.search_suite import failed, simulate
from petra.testing.toy import toy_baseline, toy_problem, toy_trial


def stopping(
    budget: dict[str, Any], *, elapsed: float = 0.0, constraints: Iterable[str] = ()
) -> Stopping:
    config = parse_config({"workload": "digits", "budget": budget})
    problem = replace(toy_problem(), constraints=tuple(Constraint.parse(c) for c in constraints))
    found = Stopping(config, problem, lambda: elapsed)
    found.learn(replace(toy_baseline(), seconds=10.0))
    return found


def trials(number: int, searcher: str = "uniform") -> list[Trial]:
    made = make_searcher(searcher, {}, toy_problem(), toy_baseline())
    return simulate(made, toy_trial, trials=number).trials


@pytest.mark.parametrize("searcher", ["uniform", "evolution"])
def test_it_ends_when_nothing_improves_whoever_searches(searcher: str) -> None:
    made = make_searcher(searcher, {}, toy_problem(), toy_baseline())
    hopeless = simulate(made, failed, trials=20).trials
    watch = stopping({"trials": 1000, "stagnation": 20})
    for trial in hopeless[:19]:
        watch.learn(trial)
    assert watch.reason() == ""
    watch.learn(hopeless[19])
    assert watch.reason() == "no progress in 20 trials"


def test_progress_is_judged_in_order_of_number() -> None:
    """So that it does not depend on who finished first."""
    found = trials(60)
    reasons = []
    for order in (range(60), np.random.default_rng(0).permutation(60)):
        watch = stopping({"trials": 1000, "stagnation": 12})
        for i in order:
            watch.learn(found[int(i)])
        reasons.append((watch._progress, {t.number for t in watch._front}))
    assert reasons[0] == reasons[1]


def test_it_goes_on_while_infeasible_trials_get_closer() -> None:
    bound = "size <= 10 kB"  # out of reach: 20 kB are fixed
    watch = stopping({"trials": 1000, "stagnation": 8}, constraints=[bound])
    found = [t for t in trials(60) if t.measured]
    found.sort(key=lambda t: -t.metrics["size_bytes"].mean)
    better = 0.0
    for number, trial in enumerate(found, 1):
        watch.learn(replace(trial, number=number))
        better += watch._progress == number
    assert better > len(found) / 2
    for number in range(len(found) + 1, len(found) + 9):
        watch.learn(replace(found[0], number=number))
    assert watch.reason() == "no progress in 8 trials"


def test_time_is_kept_for_the_final_measurements() -> None:
    watch = stopping({"time": 300.0}, elapsed=10.0)
    assert watch.kept_s == 50.0  # a usual front of five at the untouched model's pace
    assert watch.remaining() == 240.0
    assert watch.forecast() == (
        "about 24 trials fit into 300 s, of which 50 s are kept for the final measurements"
    )
    assert "more time" in stopping({"time": 45.0}, elapsed=10.0).forecast()
    assert stopping({"time": 300.0}, elapsed=249.0).reason() == ""
    assert stopping({"time": 300.0}, elapsed=250.0).reason() == "the time budget of 300 s is spent"
    assert stopping({"time": 30.0}).kept_s == 10.0, "at most a third"


def test_the_forecast_learns_from_trials_and_from_what_else_is_limited() -> None:
    watch = stopping({"time": 600.0, "trials": 9})
    for trial in trials(4):
        watch.learn(replace(trial, seconds=100.0))
    assert watch.forecast().startswith("about 5 trials fit")
    assert stopping({"trials": 9}).forecast() == ""


def test_a_baseline_that_eats_the_time_is_told_while_it_does_and_afterwards() -> None:
    watch = stopping({"time": 240.0})
    assert watch.foretold(20.0) == ""
    assert watch.foretold(60.0).startswith(
        "measuring the untouched model takes about 60 s of the 240 s that the study may take:"
        " about 100 s are left for trials"
    )
    assert "no trial will be run" in watch.foretold(324.0)
    assert stopping({"trials": 9}).foretold(324.0) == ""
    spent = stopping({"time": 12.0}, elapsed=12.0)
    assert spent.forecast().startswith(
        "no trial fits into 12 s: the untouched model alone took 10 s, and 4 s are kept"
    )
    assert stopping({"time": 30.0}, elapsed=10.0).forecast().startswith("about 1 trial fits into")


def test_the_clock_counts_the_final_measurements_whatever_the_budget() -> None:
    watch = stopping({"trials": 3}, elapsed=30.0)
    for trial in trials(2):
        watch.learn(trial)
    clock = watch.clock()
    assert clock.kept_s >= 10.0, "the untouched model at least is measured again"
    assert clock.left_s == pytest.approx(15.0 + clock.kept_s)
    assert not clock.over
    watch.learn(trials(3)[2])
    assert watch.clock().over
    assert watch.clock().left_s == watch.clock().kept_s > 0


def test_the_forecast_knows_how_long_the_first_pipelines_train() -> None:
    """Of a trial that does not train, 10 s; of one with 9 epochs of 20 s more, 200 s at least."""
    watch = stopping({"time": 600.0})
    long = Pipeline((StageSpec("tune", {"epochs": 9}),))
    watch.problem = replace(watch.problem, recipes=(long, Pipeline((StageSpec("quantize"),))))
    assert watch.forecast(epoch_s=20.0).startswith("about 5 trials fit")
    assert watch.forecast().startswith("about 55 trials fit")


def test_the_goal_ends_it() -> None:
    watch = stopping({"trials": 100, "goal": ["size <= 0.9 * baseline"]})
    for trial in trials(30):
        watch.learn(trial)
    assert watch.reason().endswith("meets the goal")
    assert watch.remaining() == 0.0


def test_stagnation_of_old_study_files_is_the_budgets_now() -> None:
    old = {"name": "evolution", "offspring": 4, "stagnation": 5, "epsilon": 0.01}
    config = parse_config({"workload": "digits", "budget": {"trials": 9}, "search": old})
    assert (config.budget.stagnation, config.budget.progress) == (20, 0.01)
    assert config.search == {"name": "evolution", "offspring": 4}
    assert parse_config(config.model_dump(mode="json")) == config
    default = parse_config({"workload": "digits", "search": {"stagnation": 0}})
    assert (default.budget.stagnation, default.budget.time) == (0, 600.0)
    assert not stopping({"trials": 9, "stagnation": 0}).reason()
    with pytest.raises(ConfigError, match=r"budget\.stagnation"):
        parse_config({"workload": "digits", "budget": {"trials": 9, "stagnation": -1}})


def test_a_proposal_under_way_is_no_progress_and_no_stagnation() -> None:
    watch = stopping({"trials": 1000, "stagnation": 3})
    late: list[Trial] = [failed(Proposal(n, t.pipeline)) for n, t in enumerate(trials(8), 1)]
    for trial in late[1:]:
        watch.learn(trial)
    assert watch.reason() == "", "trial 1 may still be the best"
    watch.learn(late[0])
    assert watch.reason() == "no progress in 3 trials"
