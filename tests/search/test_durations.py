"""Predicted seconds: of the pipeline, the rates and what was told, and of nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import FULL, Fidelity, Proposal, TrialStatus
from petra.search.durations import STAGE_EPOCHS, Durations, Rates, coarse, trained_epochs
from petra.space.space import Space
from petra.testing.toy import CARDS

RATES = Rates(fixed_s=8.0, epoch_s=2.0)
PRUNE = StageSpec("prune", {"ratio": 0.5})


def durations() -> Durations:
    cards = {c.name: replace(c, epoch_cost=3.0) if c.name == "distill" else c for c in CARDS}
    return Durations(Space(cards), RATES)


def proposal(*stages: StageSpec, fidelity: Fidelity = FULL) -> Proposal:
    return Proposal(1, Pipeline(stages), fidelity=fidelity)


def tune(epochs: int, kind: str = "tune") -> StageSpec:
    return StageSpec(kind, {"epochs": epochs, "lr": 0.1})


@pytest.mark.parametrize(
    ("stages", "epochs"),
    [
        ((PRUNE,), STAGE_EPOCHS),
        ((tune(6),), 6 + STAGE_EPOCHS),
        ((PRUNE, tune(6), tune(2, "distill")), 6 + 3 * 2 + 3 * STAGE_EPOCHS),
        ((tune(2, "gone"),), 2 + STAGE_EPOCHS),
    ],
)
def test_stages_take_their_epochs_at_the_rate(stages: tuple[StageSpec, ...], epochs: float) -> None:
    assert durations().predict(proposal(*stages)) == pytest.approx(8 + 2 * epochs)


def test_what_was_told_need_not_run_again() -> None:
    found, again = durations(), proposal(PRUNE, tune(6), PRUNE)
    found.learn(proposal(PRUNE, tune(6)).ended(TrialStatus.FAILED))
    assert found.predict(again) == pytest.approx(8 + 2 * (6 + 3 * STAGE_EPOCHS))
    found.learn(proposal(PRUNE, tune(6)).ended(TrialStatus.INFEASIBLE))
    assert found.predict(again) == pytest.approx(8 + 2 * STAGE_EPOCHS)


def test_seconds_of_trials_change_nothing() -> None:
    """With other workers they are others."""
    slow, fast = durations(), durations()
    trial = proposal(tune(6)).ended(TrialStatus.COMPLETE)
    slow.learn(replace(trial, seconds=900.0))
    fast.learn(replace(trial, seconds=1.0))
    assert slow.predict(proposal(tune(6), PRUNE)) == fast.predict(proposal(tune(6), PRUNE))


def test_low_fidelities_take_their_share_and_the_next_one_the_rest() -> None:
    found, stages = durations(), (tune(8), PRUNE)
    quarter = proposal(*stages, fidelity=Fidelity(epochs=0.5, data=0.5))
    assert found.predict(quarter) == pytest.approx(8 + 2 * (2 + 2 * STAGE_EPOCHS))
    none = proposal(*stages, fidelity=Fidelity(zero_shot=True))
    assert found.predict(none) == pytest.approx(8 + 2 * 2 * STAGE_EPOCHS)
    found.learn(quarter.ended(TrialStatus.COMPLETE))
    assert found.predict(proposal(*stages)) == pytest.approx(8 + 2 * 6)


def test_cuts_with_tuning_between_them_train() -> None:
    assert trained_epochs(StageSpec("cut", {"epochs_between": 2, "steps": 4})) == 6
    assert trained_epochs(StageSpec("odd", {"epochs": "many", "steps": "few"})) == 0


@pytest.mark.parametrize(
    ("measured", "rate"), [(1.0, 1), (7.4, 8), (5.5, 4), (0.3, 0.25), (6e-7, 2**-21)]
)
def test_rates_lie_on_a_coarse_grid(measured: float, rate: float) -> None:
    assert coarse(measured) == rate


def test_rates_that_are_not_known() -> None:
    assert Rates.of(0.0, None) == Rates(1.0, 1.0)
    assert Rates.of(15.7, None) == Rates(16.0, 16.0)
    assert Rates.of(15.7, 0.9) == Rates(16.0, 1.0)
