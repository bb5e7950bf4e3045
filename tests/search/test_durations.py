"""Predicted seconds: of the pipeline, the rates and what was told, and of nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from petra.core.pipeline import Pipeline, StageSpec
from petra.core.rng import generator
from petra.core.trial import FULL, Fidelity, Proposal, TrialStatus
from petra.search.durations import STAGE_EPOCHS, Durations, Rates, nearest_power, trained_epochs
from petra.space.space import Space
from petra.testing.toy import CARDS, toy_problem

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
    ("value", "base", "power"), [(7.4, 2, 8), (5.5, 2, 4), (0.3, 4, 0.25), (9e-6, 4, 4**-8)]
)
def test_rates_lie_on_a_coarse_grid(value: float, base: int, power: float) -> None:
    assert nearest_power(value, base) == power


@pytest.mark.parametrize(
    ("fixed_s", "epoch_s", "rates"),
    [
        (0.0, None, Rates(1.0, 1.0)),
        (0.0, 3.0, Rates(1.0, 1.0)),
        (15.7, None, Rates(16.0, 16.0)),
        (15.7, 0.9, Rates(16.0, 1.0)),
        (5.0, 22.0, Rates(4.0, 16.0)),
    ],
)
def test_rates_of_what_was_measured(fixed_s: float, epoch_s: float | None, rates: Rates) -> None:
    assert Rates.of(fixed_s, epoch_s) == rates


def test_a_machine_that_is_faster_in_everything_changes_no_order() -> None:
    """Scaled by powers of two, sums are the same to the last bit."""
    slow, fast = (Durations(toy_problem().space, Rates.of(s, 0.3 * s)) for s in (11.0, 1.3))
    for seed in range(50):
        made = Proposal(1, toy_problem().space.sample(generator(seed, "any")))
        assert slow.predict(made) == 8 * fast.predict(made)
