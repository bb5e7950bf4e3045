"""Costs in units of the untouched model, and searchers from plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from petra.core.errors import ConfigError
from petra.core.measurement import Measurement
from petra.core.metric import METRICS
from petra.core.objective import Constraint, Objective
from petra.core.pipeline import Pipeline
from petra.core.trial import Failure, Trial, TrialStatus
from petra.search.evolution import EvolutionOptions, EvolutionSearcher
from petra.search.options import SearchOptions, option, read_options
from petra.search.scaling import scale
from petra.search.table import make_searcher
from petra.search.uniform import UniformOptions, UniformSearcher
from petra.space.domains import Real
from petra.testing.search_suite import recorded, simulate
from petra.testing.toy import toy_baseline, toy_problem


def trial(number: int = 1, status: TrialStatus = TrialStatus.COMPLETE, **metrics: float) -> Trial:
    return Trial(
        number, Pipeline(), status, metrics={k: Measurement(v) for k, v in metrics.items()}
    )


BASE = trial(
    0,
    quality=0.8,
    latency_ratio=1.03,
    latency_ms=4.0,
    throughput=100.0,
    throughput_ratio=0.97,
    size_bytes=1e6,
    train_s=0.0,
)


@pytest.mark.parametrize(
    ("metric", "maximize", "value", "cost", "reference"),
    [
        ("latency_ratio", False, 0.5, 0.5, 1.1),
        ("latency_ms", False, 1.0, 0.25, 1.1),
        ("size_bytes", False, 1.5e6, 1.5, 1.1),
        ("throughput", True, 400.0, 0.25, 1.1),
        ("throughput", True, 0.0, math.inf, 1.1),
        ("throughput_ratio", True, 2.0, 0.5, 1.1),
        ("train_s", False, 0.0, 0.0, 1.1),
        ("train_s", False, METRICS.get("train_s").half, 0.5, 1.1),
        ("quality", True, 0.6, 0.25, 0.5),
        ("quality", True, 1.0, -0.25, 0.5),
        ("quality", False, 1.2, 0.5, 1.0),
        ("quality", True, math.nan, math.inf, 0.5),
    ],
)
def test_costs_and_references(
    metric: str, maximize: bool, value: float, cost: float, reference: float
) -> None:
    scaling = scale([Objective(metric, maximize)], (), BASE)
    # Timed: on a 1% grid.
    assert scaling.costs(trial(**{metric: value})) == pytest.approx([cost], rel=0.006)
    assert scaling.reference.tolist() == [reference]
    assert scaling.usable(trial(**{metric: value})) == math.isfinite(cost)


def test_the_untouched_model_costs_one_and_loses_nothing() -> None:
    objectives = [
        Objective("quality", True),
        Objective("latency_ms", False),
        Objective("size_bytes", False),
    ]
    scaling = scale(objectives, (), BASE)
    assert scaling.costs(BASE).tolist() == [0.0, 1.0, 1.0]
    assert scaling.hypervolume([BASE]) == pytest.approx(0.5 * 0.1 * 0.1)


@pytest.mark.parametrize(
    ("maximize", "texts", "bound_cost"),
    [
        (True, ["quality >= baseline - 0.08"], 0.1),
        (True, ["quality >= 0.4", "quality >= 0.72"], 0.1),
        (True, ["quality >= 0.2"], 0.75),
        (True, ["quality >= 0.88"], -0.1),
        (True, ["quality >= baseline"], 0.0),
        (False, ["quality <= 1.2 * baseline"], 0.2),
    ],
)
def test_a_quality_constraint_moves_the_reference_just_beyond_itself(
    maximize: bool, texts: list[str], bound_cost: float
) -> None:
    scaling = scale([Objective("quality", maximize)], [Constraint.parse(t) for t in texts], BASE)
    assert (
        bound_cost < scaling.reference[0] <= bound_cost + max(0.1 * abs(bound_cost), 0.005) + 1e-12
    )


def test_a_constraint_in_the_other_direction_moves_nothing() -> None:
    scaling = scale([Objective("quality", True)], [Constraint.parse("quality <= 0.85")], BASE)
    assert scaling.reference.tolist() == [0.5]


def test_a_baseline_score_of_zero_is_scaled_absolutely() -> None:
    scaling = scale([Objective("quality", True)], (), trial(0, quality=0.0))
    assert scaling.costs(trial(quality=0.3)) == pytest.approx([-0.3])


def test_what_cannot_be_measured_against_the_baseline_is_refused() -> None:
    with pytest.raises(ConfigError, match="macs of the untouched model is 0"):
        scale([Objective("macs", False)], (), trial(0, macs=0.0))


def test_hypervolume_counts_feasible_measured_trials_only() -> None:
    objectives = [Objective("quality", True), Objective("size_bytes", False)]
    constraints = [Constraint.parse("size <= 0.8 * baseline")]
    scaling = scale(objectives, constraints, BASE)
    good = trial(quality=0.8, size_bytes=0.5e6)
    too_big = trial(2, quality=0.9, size_bytes=0.9e6)
    broken = Trial(
        3, Pipeline(), TrialStatus.FAILED, failure=Failure("tune", "DivergedError", "nan")
    )
    nan = trial(4, quality=math.nan, size_bytes=1.0)
    assert scaling.hypervolume([]) == 0.0
    assert scaling.hypervolume([good]) == pytest.approx(0.5 * 0.6)
    assert scaling.hypervolume([good, too_big, broken, nan, BASE]) == pytest.approx(0.5 * 0.6)


def test_the_reference_cannot_be_changed() -> None:
    scaling = scale([Objective("quality", True)], (), BASE)
    with pytest.raises(ValueError, match="read-only"):
        scaling.reference[0] = 3.0
    assert isinstance(scaling.costs(BASE), np.ndarray)


def test_searchers_are_made_from_plain_data() -> None:
    problem, baseline = toy_problem(), toy_baseline()
    searcher = make_searcher("evolution", {"population": 4}, problem, baseline)
    assert isinstance(searcher, EvolutionSearcher)
    assert searcher.options == EvolutionOptions(population=4)
    default = make_searcher("uniform", {}, problem, baseline)
    assert isinstance(default, UniformSearcher)
    assert default.options == UniformOptions()


def test_a_whole_number_is_taken_where_any_number_may_be() -> None:
    @dataclass(frozen=True)
    class Options(SearchOptions):
        share: float = option(0.5, Real(0.0, 1.0), "a share")

    options = read_options(Options, {"share": 0}, where="search")
    assert options == Options(share=0.0)
    assert isinstance(options.share, float)


@pytest.mark.parametrize(
    ("name", "options", "message", "hint"),
    [
        ("evolutoin", {}, "unknown searcher 'evolutoin'", "did you mean 'evolution'"),
        (
            "evolution",
            {"populaton": 4},
            "search.populaton: no such option",
            "did you mean 'population'",
        ),
        ("evolution", {"population": 0}, "search.population: got 0", r"allowed: \[1, 1000\]"),
        ("evolution", {"population": "8"}, "search.population: got '8'", "allowed"),
        ("evolution", {"population": True}, "search.population: got True", "allowed"),
        ("uniform", {"generation": 2.5}, "search.generation: got 2.5", "allowed"),
    ],
)
def test_wrong_options_are_refused_with_their_path(
    name: str, options: dict[str, object], message: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make_searcher(name, options, toy_problem(), toy_baseline())
    assert hint.replace("\\", "") in caught.value.hint


def test_options_without_fields_say_so() -> None:
    from petra.search.options import SearchOptions

    with pytest.raises(ConfigError, match=r"^search\.x: no such option") as caught:
        read_options(SearchOptions, {"x": 1}, where="search")
    assert caught.value.hint == "this searcher has no options"


def test_random_search_depends_on_seed_and_number_only() -> None:
    def first(n: int, **options: int) -> list[str]:
        searcher = UniformSearcher(toy_problem(seed=3), toy_baseline(), UniformOptions(**options))
        return [p.pipeline.key for p in simulate(searcher, recorded, trials=n).proposals]

    assert first(24) == first(24, generation=5) == first(24, generation=1)
