"""Metrics of which the untouched model has none, as objectives of the surrogate-ranked search."""

from __future__ import annotations

from dataclasses import replace

import pytest

from petra.core.measurement import Measurement
from petra.core.objective import Objective
from petra.core.trial import Proposal, Trial
from petra.search.surrogate.searcher import SurrogateOptions, SurrogateSearcher
from petra.testing.search_suite import simulate
from petra.testing.toy import OBJECTIVES, toy_baseline, toy_problem, toy_trial

COUNT = "trainable_params"


def counted(trial: Trial, count: float) -> Trial:
    if not trial.measured:
        return trial
    return replace(trial, metrics={**trial.metrics, COUNT: Measurement(count)})


@pytest.mark.parametrize("step", [0.0, 1e5], ids=["nothing", "by stages"])
def test_counts_that_begin_at_nothing_are_searched(step: float) -> None:
    problem = replace(toy_problem(), objectives=(*OBJECTIVES, Objective(COUNT, False)))

    def evaluate(proposal: Proposal) -> Trial:
        return counted(toy_trial(proposal), step * max(0, len(proposal.pipeline) - 1))

    options = SurrogateOptions(candidates=30, rounds=1)
    searcher = SurrogateSearcher(problem, counted(toy_baseline(), 0.0), options)
    assert len(simulate(searcher, evaluate, trials=24).trials) == 24
