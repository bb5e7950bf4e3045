"""Learning curves: what is hoped of one, whom that stops, and that it does not matter where it was
trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from petra.core.curve import curve_of
from petra.core.measurement import Measurement
from petra.core.objective import Constraint, named_objectives
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.rivals import Rivals
from petra.core.rng import derive_seed
from petra.core.trial import FULL, Fidelity, StageTrace, TrialStatus
from petra.execute.apply import apply_pipeline
from petra.execute.cache import PrefixCache
from petra.execute.curves import ENOUGH, CurveWatch, ceiling_of
from petra.execute.prospects import Left
from petra.methods.base import Context
from petra.search.rivalry import Rivalry
from petra.testing.stage_suite import small_problem
from petra.testing.toy import toy_baseline, toy_problem

OBJECTIVES = named_objectives(("quality", "size_bytes"))


def rivals(*curves: tuple[float, ...], floor: str = "quality >= 0.8", best: float = 0.9) -> Rivals:
    baseline = {"quality": Measurement(best, 0.01, 100), "size_bytes": Measurement(1000.0)}
    constraints = (Constraint.parse(floor),)
    return Rivals(OBJECTIVES, constraints, baseline, (baseline,), curves=curves)


HALVES = (0.1, 0.5, 0.7, 0.8)  # half of what is missing to 0.9, in every third of the training


def test_a_candidate_is_given_the_largest_share_that_was_made_good() -> None:
    slow = (0.1, 0.2, 0.2, 0.3)
    told = rivals(HALVES, *[slow] * ENOUGH)
    # After one of three epochs HALVES makes good 3/4 of what it misses, the others 1/7.
    found = ceiling_of((0.0, 0.3), 3, told, True)
    assert found == pytest.approx(0.3 + 0.75 * 0.6 + 0.02)
    # Of a training of six epochs, two are as far.
    assert ceiling_of((0.0, 0.1, 0.3), 6, told, True) == pytest.approx(found)
    assert ceiling_of((0.0, 0.3), 3, rivals(*[slow] * ENOUGH), True) == pytest.approx(
        0.3 + 0.1 / 0.7 * 0.6 + 0.02
    )


def test_an_error_is_hoped_to_fall_as_a_score_is_to_rise() -> None:
    errors = [tuple(1.2 - x for x in HALVES)] * ENOUGH
    score = ceiling_of((0.0, 0.3), 3, rivals(*[HALVES] * ENOUGH), True)
    error = ceiling_of((1.2, 0.9), 3, rivals(*errors, best=0.3), False)
    assert score is not None
    assert error == pytest.approx(1.2 - score)


def test_nobody_is_judged_by_too_few_or_at_the_best() -> None:
    assert ceiling_of((0.0, 0.3), 3, rivals(*[HALVES] * (ENOUGH - 1)), True) is None
    assert ceiling_of((0.0, 0.95), 3, rivals(*[HALVES] * ENOUGH), True) is None


def watched(told: Rivals, *curve: float, epochs: int = 3, audit: bool = False) -> CurveWatch:
    watch = CurveWatch(told, {}, maximize=True, audit=audit)
    for done in range(1, len(curve)):
        watch(curve[: done + 1], epochs)
    return watch


def test_who_cannot_catch_up_is_left_with_the_epoch_and_the_reason() -> None:
    told = rivals(*[HALVES] * ENOUGH)
    with pytest.raises(Left) as left:
        watched(told, 0.0, 0.2)
    assert left.value.found.kind == "learning curve"
    assert left.value.found.reason.startswith("after epoch 1 of 3: quality 0.745 at best")
    assert watched(told, 0.0, 0.5).found is None
    assert watched(told, 0.0, 0.5, 0.75, 0.1).found is None, "the end is no longer a matter of hope"
    audited = watched(told, 0.0, 0.2, audit=True)
    assert audited.found is not None


def test_only_whole_trainings_have_curves() -> None:
    whole = {"epochs": 2, "score_before": 0.1, "curve": [0.2, 0.3]}
    assert curve_of(StageTrace("tune", details=whole)) == (0.1, 0.2, 0.3)
    for details in ({}, {**whole, "epochs": 3}, {**whole, "curve": []}, {"training": whole}):
        assert curve_of(StageTrace("tune", details=details)) == ()


def test_curves_come_from_trials_that_were_told_and_trained_in_full() -> None:
    rivalry = Rivalry(toy_problem(), toy_baseline())
    trace = (StageTrace("tune", details={"epochs": 1, "score_before": 0.1, "curve": [0.2]}),)
    base = toy_baseline()
    for number, fidelity in ((1, Fidelity(epochs=0.5)), (2, FULL)):
        rivalry.learn(
            type(base)(
                number,
                Pipeline((StageSpec("tune", {"epochs": number}),)),
                TrialStatus.COMPLETE,
                fidelity=fidelity,
                metrics=base.metrics,
                trace=trace,
            )
        )
    assert rivalry.rivals.curves == ((0.1, 0.2),)


CUT = StageSpec("prune.structured", {"ratio": 0.4})
# At such a rate nothing is learnt.
TUNE = StageSpec("tune", {"epochs": 3, "batch_size": 32, "lr": 1e-6})


def run(place: Path | None, watch: CurveWatch | None, at: Fidelity = FULL) -> nn.Module:
    model, task = small_problem()

    def context(prefix: Pipeline) -> Context:
        return Context(task=task, teacher=model, seed=derive_seed(0, prefix.key))

    arguments: dict[str, Any] = {"fidelity": at, "watch": watch}
    cache = PrefixCache(place, 10**9) if place else None
    result, _ = apply_pipeline(
        model, Pipeline((CUT, TUNE)), context, cache=cache, on_stage=lambda i, s: None, **arguments
    )
    return result


@pytest.mark.parametrize("before", [None, Fidelity(epochs=0.7), FULL])
def test_the_verdict_does_not_depend_on_where_the_training_ran(
    tmp_path: Path, before: Fidelity | None
) -> None:
    """From the start, from a lower rung's state, or out of the cache."""
    if before:
        run(tmp_path, None, before)
    told = rivals(*[(0.1, 0.1, 0.1, 0.12)] * ENOUGH)
    with pytest.raises(Left, match="after epoch 1 of 3: quality"):
        run(tmp_path, CurveWatch(told, {}, maximize=True))
    run(tmp_path, CurveWatch(rivals(), {}, maximize=True))
