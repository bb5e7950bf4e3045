"""Parameters of losses: they reach the stages, leave old pipelines as they are, are searched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from measured_data import SPLITS, VALUES

import petra
from petra.core.errors import ConfigError
from petra.methods.distill.distill import Distill
from petra.methods.tune.tune import Tune
from petra.space.declare import parameter
from petra.space.domains import Real
from petra.space.moves import perturb
from petra.space.narrow import narrow
from petra.space.space import Space
from petra.tasks.base import Task
from petra.tasks.class_losses import CrossEntropy, Focal
from petra.tasks.losses import Loss
from petra.tasks.value_losses import Huber


@pytest.fixture
def task() -> Task:
    return petra.classification(*SPLITS)


def test_a_loss_brings_its_parameters_to_every_stage_that_has_one(task: Task) -> None:
    card = Distill.card_for(task)
    full = card.normalize({"loss": "focal", "gamma": 3.0})
    assert full.params["gamma"] == 3.0
    assert "label_smoothing" not in full.params
    assert Distill.from_spec(full, task).brought == {"gamma": 3.0, "temperature": 4.0}
    with pytest.raises(ConfigError, match="no such parameter"):
        Distill.card().normalize({"gamma": 3.0})
    assert "gamma" not in card.normalize({"gamma": 3.0}).params, "another loss has no gamma"


def test_pipelines_from_before_a_parameter_existed_are_the_same(task: Task) -> None:
    """Seeds, stored results and caches hang on it: at its default it is not written."""
    card = Distill.card_for(task)
    old = {"loss": "focal", "epochs": 2}
    assert card.normalize({**old, "gamma": 2.0}) == card.normalize(old)
    assert "gamma" not in card.normalize(old).params
    # What pipelines always had, they still have.
    assert Tune.card_for(task).normalize({}).params["label_smoothing"] == 0.0
    assert card.normalize({}).params["temperature"] == 4.0
    numbers = petra.regression(*VALUES)
    assert Tune.card_for(numbers).normalize({}).params["label_smoothing"] == 0.0
    assert Distill.card_for(numbers).normalize({}).params["temperature"] == 4.0


def test_what_is_not_written_can_be_moved(task: Task) -> None:
    space = Space({"distill": Distill.card_for(task)}, max_length=1)
    start = space.sample(np.random.default_rng(0))
    stage = start.stages[0].replace(loss="focal", alpha=0.5)
    start = space.normalize(type(start)((stage,)))
    moved = {
        child.stages[0].params.get("gamma", 2.0)
        for seed in range(300)
        if (child := perturb(start, space, np.random.default_rng(seed)))
    }
    assert len(moved) > 5


def test_a_narrowed_parameter_is_written_when_its_default_moves(task: Task) -> None:
    card = narrow(Distill.card_for(task), {"gamma": [3.0, 4.0]}, where="space.stages.distill")
    assert card.normalize({"loss": "focal"}).params["gamma"] == 3.0


def test_the_default_of_a_value_is_the_default_of_the_search() -> None:
    task = petra.regression(*VALUES, loss=Huber(delta=3.0))
    card = Tune.card_for(task)
    assert card.parameter("delta").default == 3.0  # type: ignore[union-attr]
    assert "delta" not in card.normalize({"loss": "huber"}).params
    built = Tune.from_spec(card.normalize({}), task)
    found = built.config().loss_of(task)  # type: ignore[attr-defined]
    assert found == Huber(delta=3.0, unit=task.unit)


@dataclass(frozen=True)
class _Other(Focal):
    name = "other"  # type: ignore[misc]
    gamma: float = parameter(1.0, Real(0.0, 9.0), "another one of the same name")


@dataclass(frozen=True)
class _Clash(CrossEntropy):
    name = "clash"  # type: ignore[misc]
    epochs: float = parameter(1.0, Real(0.0, 9.0), "what the stage has too")


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (_Other(), "its parameter gamma is another one"),
        (_Clash(), "a parameter of that name too"),
    ],
)
def test_names_that_mean_two_things_are_refused(loss: Loss, words: str) -> None:
    task = petra.classification(*SPLITS, loss=(Focal(), loss))
    with pytest.raises(ConfigError, match=words):
        Tune.card_for(task)


def test_values_outside_their_limits_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Focal\.gamma: got -1"):
        Focal(gamma=-1.0)
    with pytest.raises(ConfigError, match=r"Focal\.alpha: there is no such parameter"):
        Focal().setting(alpha=1.0)
