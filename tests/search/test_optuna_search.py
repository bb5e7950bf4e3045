"""Optuna's samplers keep the promises of every searcher, and are told what was evaluated."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petra.core.errors import ConfigError
from petra.core.measurement import Measurement
from petra.core.objective import Constraint
from petra.core.pipeline import Pipeline, StageSpec, Value
from petra.core.rng import generator
from petra.core.trial import Fidelity, Proposal, Trial, TrialStatus
from petra.search.base import RANDOM, Problem, Searcher
from petra.search.choices import Choices
from petra.search.optuna_search import SAMPLED
from petra.search.table import make_searcher
from petra.space.domains import Domain
from petra.space.space import Space
from petra.testing.search_suite import Run, SearcherSuite, failed, simulate
from petra.testing.toy import CARDS, OBJECTIVES, toy_baseline, toy_problem, toy_space, toy_trial

optuna = pytest.importorskip("optuna")
State = optuna.trial.TrialState


def searcher(sampler: str, problem: Problem | None = None, **options: object) -> Any:
    named = {"sampler": sampler, **options}
    return make_searcher("optuna", named, problem or toy_problem(), toy_baseline())


@pytest.mark.slow
class TestTPE(SearcherSuite):
    def make(self, problem: Problem, baseline: Trial) -> Searcher:
        return make_searcher("optuna", {}, problem, baseline)


@pytest.mark.slow
class TestGP(SearcherSuite):
    def make(self, problem: Problem, baseline: Trial) -> Searcher:
        return searcher("GPSampler", problem)


class TestNSGAII(SearcherSuite):
    def make(self, problem: Problem, baseline: Trial) -> Searcher:
        return searcher("NSGAIISampler", problem, population_size=6)


@pytest.mark.slow
class TestNSGAIII(SearcherSuite):
    def make(self, problem: Problem, baseline: Trial) -> Searcher:
        return searcher("NSGAIIISampler", problem, population_size=6)


@pytest.mark.slow
class TestRandom(SearcherSuite):
    def make(self, problem: Problem, baseline: Trial) -> Searcher:
        return searcher("RandomSampler", problem)


@pytest.mark.slow
class TestCmaEs(SearcherSuite):
    def make(self, problem: Problem, baseline: Trial) -> Searcher:
        return searcher("CmaEsSampler", replace(problem, objectives=OBJECTIVES[:1]))


@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        ("TPESampler", {"n_startup_trials": 6}),
        ("GPSampler", {"n_startup_trials": 4}),
        ("NSGAIIISampler", {"population_size": 4}),
        ("CmaEsSampler", {}),
    ],
)
def test_it_goes_on_as_if_it_had_not_been_cut_off(sampler: str, options: dict[str, int]) -> None:
    """Also where a sampler keeps notes: generations and their parents, an optimizer's state."""
    one = sampler == "CmaEsSampler"
    card = next(card for card in CARDS if card.name == "tune")
    simple = Problem(Space({"tune": card}, max_length=1), OBJECTIVES[:1])
    problem = simple if one else toy_problem()
    number = 10 if sampler == "GPSampler" else 16
    whole = simulate(searcher(sampler, problem, **options), toy_trial, trials=number)
    part = Run(whole.proposals[: number - 2], whole.trials[: number - 3])
    again = searcher(sampler, problem, **options)
    run = simulate(again, toy_trial, trials=number, workers=3, before=part)
    assert run.proposals == whole.proposals
    assert {p.origin for p in run.proposals} <= {SAMPLED, RANDOM}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_pipeline_is_the_choices_that_it_was_made_by(seed: int) -> None:
    """Whatever is drawn is legal, and made of it is what was chosen, values as they are spelt."""
    choices = Choices(toy_space())
    rng = generator(seed, "choices")
    chosen: dict[str, Any] = {}

    def choose(name: str, domain: Domain) -> Value:
        chosen[name] = domain.sample(rng)
        return chosen[name]

    pipeline = choices.draw(choose, rng)
    assert toy_space().normalize(pipeline) == pipeline
    made = choices.made(pipeline)
    assert made.keys() <= chosen.keys() | {f"stage {i + 1}" for i in range(len(pipeline))}
    assert made["length"][0] == len(pipeline)
    for position, stage in enumerate(pipeline, 1):
        assert made[f"stage {position}"][0] == stage.kind
    values = {**{name: value for name, (value, _) in made.items()}}
    assert choices.draw(lambda name, _: values[name], rng) == pipeline


def test_what_the_sampler_is_told_is_what_was_evaluated() -> None:
    """Trial by trial: parameters, values, constraints, states; of those told, and those pending."""
    constraints = (Constraint.parse("size <= 0.5 * baseline"),)
    problem = toy_problem(constraints=constraints)
    made = searcher("RandomSampler", problem)

    def evaluate(proposal: Proposal) -> Trial:
        if proposal.number % 5 == 0:
            return failed(proposal)
        trial = toy_trial(proposal, constraints=constraints)
        return replace(trial, fidelity=Fidelity(data=0.5)) if proposal.number % 7 == 0 else trial

    run = simulate(made, evaluate, trials=40)
    told = {number for proposal in run.proposals for number in proposal.told}
    stored = made._opened(0).get_trials()[1:]
    base = toy_baseline().metrics
    for proposal, trial, seen in zip(run.proposals, run.trials, stored, strict=True):
        assert Choices(problem.space).draw(lambda name, _: seen.params[name], None) == (  # noqa: B023
            proposal.pipeline
        )
        if proposal.number not in told:
            assert seen.state is State.RUNNING
        elif trial.comparable:
            assert seen.state is State.COMPLETE
            assert seen.values == [trial.metrics[o.metric].mean for o in OBJECTIVES]
            assert seen.constraints == {
                str(c): c.violation(trial.metrics, base) for c in constraints
            }
        else:
            assert seen.state is State.FAIL
    assert {t.state for t in stored} == {State.RUNNING, State.COMPLETE, State.FAIL}


def test_values_that_cannot_be_compared_are_failures() -> None:
    made = searcher("RandomSampler")
    first = made.ask()
    trial = next(toy_trial(replace(first, pipeline=p)) for p in [first.pipeline])
    broken = {**toy_baseline().metrics, "quality": Measurement(math.nan)}
    made.tell(replace(trial, status=TrialStatus.COMPLETE, metrics=broken, failure=None))
    assert made._opened(0).get_trials()[1].state is State.FAIL


def test_a_pipeline_from_elsewhere_is_told_as_far_as_it_can_be() -> None:
    """One with a value outside the domain, and one of a kind of stage that there is no more."""
    made = searcher("TPESampler")
    tune = toy_space().cards["tune"]
    wide = StageSpec("tune", {**tune.normalize({}).params, "epochs": 99})
    made.restore(Proposal(1, Pipeline((wide, StageSpec("gone", {"x": 1})))))
    seen = made._opened(0).get_trials()[1].params
    assert seen["length"] == 2
    assert seen["stage 1"] == "tune"
    assert "tune.lr" in seen
    assert not {"tune.epochs", "stage 2", "gone.x"} & seen.keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "GridSampler"}, "search.sampler: got 'GridSampler'"),
        ({"sampler": "TPESampler", "population_size": 8}, "TPESampler has no such option"),
        ({"sampler": "RandomSampler", "group": False}, "RandomSampler has no such option"),
        ({"multivariate": False}, "group: needs multivariate"),
        ({"sampler": "CmaEsSampler"}, "takes one objective, not 3"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_searcher("optuna", options, toy_problem(), toy_baseline())


def test_it_says_nothing(capfd: pytest.CaptureFixture[str], recwarn: object) -> None:
    level = optuna.logging.get_verbosity()
    simulate(searcher("TPESampler", n_startup_trials=2), toy_trial, trials=4)
    assert capfd.readouterr() == ("", "")
    assert not list(recwarn)  # type: ignore[call-overload]
    assert optuna.logging.get_verbosity() == level
