"""What Bayesian optimisation does, beyond and including the promises of every searcher."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from petra.config import StudyConfig
from petra.core.errors import MissingExtra
from petra.core.measurement import Measurement
from petra.core.objective import Constraint, Objective
from petra.core.pipeline import Pipeline
from petra.core.trial import Proposal, Trial
from petra.problem import check_searcher
from petra.search.base import Problem, Searcher
from petra.search.bayes.searcher import BayesOptions, BayesSearcher
from petra.search.scaling import scale
from petra.search.table import make_searcher
from petra.space.encoding import Encoding
from petra.testing.search_suite import Run, SearcherSuite, failed, recorded, simulate
from petra.testing.toy import OBJECTIVES, toy_baseline, toy_problem, toy_space, toy_trial

pytest.importorskip("botorch")
import torch

from petra.search.bayes import gaussian

FEW: dict[str, object] = {"initial": 17, "batch": 3, "restarts": 3, "evaluations": 60}


@pytest.fixture(autouse=True)
def _hasty(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds of proposals does not depend on how well the models are fitted."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(gaussian, "ITERATIONS", 2)


class TestBayes(SearcherSuite):
    trials = 21

    def make(self, problem: Problem, baseline: Trial) -> Searcher:
        return make_searcher("bayes", FEW, problem, baseline)


def few(problem: Problem, baseline: Trial | None = None, **options: int) -> BayesSearcher:
    made = make_searcher("bayes", {**FEW, **options}, problem, baseline or toy_baseline())
    assert isinstance(made, BayesSearcher)
    return made


def model_based(run: Run) -> list[Proposal]:
    return [p for p in run.proposals if p.origin.moves == ("improvement",)]


def test_models_are_told_what_was_proposed_and_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row a model is fitted to, or predicts from, is the encoding of a stored pipeline of the
    very trial whose values it comes with; what is proposed is what the improvement was asked of.
    """
    from petra.search.bayes import improvement

    stored: dict[bytes, float] = {}
    asked: list[bytes] = []
    encoding = Encoding(toy_space())

    def as_stored(pipeline: Pipeline) -> bytes:
        return encoding.encode(Pipeline.from_list(pipeline.as_list())).tobytes()

    given = gaussian.Posterior.__init__

    def watched(self, hyperparameters, x, lesson):  # type: ignore[no-untyped-def]
        sizes = {row.tobytes(): score for row, score in zip(x, lesson.scores, strict=True)}
        assert set(sizes) <= set(stored)
        if len(sizes) == len(x) == len(stored):  # a quantity that every trial has, none twice
            by_size = sorted(sizes, key=stored.__getitem__)
            if all(np.diff([sizes[key] for key in by_size]) >= 0):
                asked.append(b"sizes in order")
        given(self, hyperparameters, x, lesson)

    value = improvement.Improvement.__call__

    def asking(self, x):  # type: ignore[no-untyped-def]
        asked.extend(row.tobytes() for row in x)
        return value(self, x)

    monkeypatch.setattr(gaussian.Posterior, "__init__", watched)
    monkeypatch.setattr(improvement.Improvement, "__call__", asking)
    stored[as_stored(Pipeline())] = toy_baseline().metrics["size_bytes"].mean

    def evaluate(proposal: Proposal) -> Trial:
        trial = recorded(proposal, failing=0.0)
        stored[as_stored(proposal.pipeline)] = trial.metrics["size_bytes"].mean
        return trial

    run = simulate(few(toy_problem(), batch=1), evaluate, trials=21, virtual=1)
    proposed = model_based(run)
    assert len(proposed) == 4
    assert {as_stored(p.pipeline) for p in proposed} <= set(asked)
    assert asked.count(b"sizes in order") >= 4


def cost_metrics(number: int) -> tuple[Objective, ...]:
    more = (Objective("params", False), Objective("macs", False))
    return (*OBJECTIVES, *more)[:number]


def measured(proposal: Proposal) -> Trial:
    """A toy trial with two more costs."""
    trial = toy_trial(proposal)
    if not trial.measured:
        return trial
    size, ratio = trial.metrics["size_bytes"].mean, trial.metrics["latency_ratio"].mean
    more = {"params": Measurement(size / 4), "macs": Measurement(ratio * size)}
    return replace(trial, metrics={**trial.metrics, **more})


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_any_number_of_objectives(number: int) -> None:
    baseline = measured(Proposal(0, Pipeline()))
    searcher = few(Problem(toy_space(), cost_metrics(number)), baseline)
    assert len(model_based(simulate(searcher, measured, trials=21))) == 4


def test_objectives_that_never_vary() -> None:
    def constant(proposal: Proposal) -> Trial:
        trial = toy_trial(proposal)
        if not trial.measured:
            return trial
        still = {"size_bytes": Measurement(1.02e6), "quality": Measurement(0.9)}
        return replace(trial, metrics={**trial.metrics, **still})

    run = simulate(few(toy_problem()), constant, trials=21)
    assert len(model_based(run)) == 4


def test_nothing_is_modelled_where_nothing_was_measured() -> None:
    run = simulate(few(toy_problem()), failed, trials=21)
    assert not model_based(run)
    assert len(run.trials) == 21


def test_models_propose_where_nothing_is_feasible_yet() -> None:
    constraints = (Constraint.parse("size <= 1 kB"), Constraint.parse("params <= 0.001 * baseline"))
    baseline = measured(Proposal(0, Pipeline()))
    searcher = few(Problem(toy_space(), OBJECTIVES, constraints), baseline, batch=1)
    assert len(model_based(simulate(searcher, measured, trials=21))) == 4


def test_what_failed_keeps_models_away() -> None:
    """All that holds a stage fails: the fourteenth trial on, hardly any proposal holds it."""

    def fails(proposal: Proposal) -> Trial:
        if any(s.kind == "prune" for s in proposal.pipeline):
            return failed(proposal)
        return toy_trial(proposal)

    searcher = few(toy_problem(), batch=1, evaluations=200)
    proposed = model_based(simulate(searcher, fails, trials=25))
    assert sum(any(s.kind == "prune" for s in p.pipeline) for p in proposed) <= 2


def test_proposals_under_way_are_taken_into_account() -> None:
    """Nothing is told between them, and each lies elsewhere."""
    searcher = few(toy_problem(), batch=8)
    simulate(searcher, toy_trial, trials=17)
    encoding = Encoding(toy_space())
    made = [searcher.ask() for _ in range(3)]
    rows = [encoding.encode(p.pipeline) for p in made if p is not None]
    assert len(rows) == 3
    assert min(np.abs(a - b).max() for a in rows for b in rows if a is not b) > 0.02


def test_threads_and_random_numbers_of_torch_stay_as_they_were() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    run = simulate(few(toy_problem()), recorded, trials=19)
    assert model_based(run)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_a_missing_library_is_said_before_anything_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botorch", None)
    config = StudyConfig.model_validate(
        {
            "workload": "digits",
            "objectives": ["quality", "size"],
            "budget": {"trials": 3},
            "search": {"name": "bayes"},
            "workdir": "study",
        }
    )
    with pytest.raises(MissingExtra, match="botorch") as caught:
        check_searcher(config)
    assert "petra[bayes]" in caught.value.hint


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fully_bayesian_proposals_are_legal_new_and_the_same_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Few draws: what is compiled for every fit takes the time."""
    for name, number in {"WARMUP": 8, "DRAWS": 8, "THINNING": 4}.items():
        monkeypatch.setattr(gaussian, name, number)
    problem = Problem(toy_space(), OBJECTIVES[:2])

    def made() -> Run:
        options = {**FEW, "inference": "nuts"}
        searcher = make_searcher("bayes", options, problem, toy_baseline())
        return simulate(searcher, toy_trial, trials=18)

    first = made()
    assert len(model_based(first)) == 1
    assert all(problem.space.is_legal(p.pipeline) for p in first.proposals)
    assert len({p.pipeline.key for p in first.proposals}) == 18
    assert made().proposals == first.proposals


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_it_beats_random_search_at_equal_trials() -> None:
    gain = []
    scaling = scale(OBJECTIVES, (), toy_baseline())
    for seed in range(2):
        problem, baseline = toy_problem(seed=seed), toy_baseline()
        searchers = (
            BayesSearcher(problem, baseline, BayesOptions()),
            make_searcher("uniform", {}, problem, baseline),
        )
        here, there = (
            scaling.hypervolume([baseline, *simulate(s, toy_trial, trials=100).trials])
            for s in searchers
        )
        gain.append(here - there)
    assert np.mean(gain) > 0.02, gain
