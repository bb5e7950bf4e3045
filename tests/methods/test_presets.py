"""Spaces by name: what they hold, what comes before them, and what they leave out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from petra.config import StudyConfig, parse_config
from petra.core.errors import ConfigError
from petra.methods.presets import CONSERVATIVE, PRESETS
from petra.methods.table import STAGES
from petra.problem import build_space, check_settings, objections
from petra.recipes import make_recipes
from petra.space.domains import Choice, Integer, Real
from petra.space.narrow import narrow, narrow_as_far
from petra.testing.architectures import ARCHITECTURES


def config(runtime: str = "onnxruntime", **space: Any) -> StudyConfig:
    return parse_config(
        {"workload": "digits", "target": runtime, "budget": {"trials": 1}, "space": space}
    )


@pytest.mark.parametrize("name", PRESETS)
def test_every_range_is_one_that_a_person_may_write(name: str) -> None:
    """And says of every stage what it has: no parameter is misspelt."""
    preset = PRESETS[name]
    for stage, ranges in preset.ranges.items():
        card = STAGES.get(stage).card()
        brought = {name for slot in card.slots for name in slot.always}
        narrow(card, {n: r for n, r in ranges.items() if n not in brought}, where=stage)
    assert {*preset.without, *preset.only} <= set(STAGES.names())
    assert not set(preset.without) & set(preset.ranges)


@pytest.mark.parametrize("architecture", ["cnn-1d", "mlp", "lstm", "torch-transformer"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "litert"])
def test_what_is_drawn_is_gentle(architecture: str, runtime: str) -> None:
    model, task = ARCHITECTURES.get(architecture)()
    space = build_space(config(runtime, preset="conservative"), task, model)
    assert not set(CONSERVATIVE.without) & set(space.cards)
    rng = np.random.default_rng(0)
    for stage in (s for _ in range(300) for s in space.sample(rng)):
        params = stage.params
        assert params.get("ratio", 0.3) <= (0.3 if stage.kind.startswith("prune") else 0.8)
        assert params.get("blocks", 1) == 1
        assert params.get("bits", 8) in (8, 16)
        assert params.get("lr", 1e-3) <= 1e-2
        assert params.get("penalty", "none") == "none"
        if stage.kind in ("quantize.static", "quantize.qat", "quantize.dynamic"):
            assert params["exclude"] in ("last", "ends")
            assert params.get("observer", "minmax") == "minmax"


def test_recipes_keep_to_it() -> None:
    model, task = ARCHITECTURES.get("cnn-1d")()
    study = config(preset="conservative")
    space = build_space(study, task, model, without=objections(study, model, task))
    recipes = make_recipes(space, model, task, study.target)
    assert recipes
    for stage in (s for p in recipes for s in p):
        for name in CONSERVATIVE.ranges.get(stage.kind, {}).keys() & stage.params.keys():
            parameter = space.cards[stage.kind].parameter(name)
            assert parameter is not None
            assert parameter.domain.contains(stage.params[name])


def test_a_users_own_come_before_it() -> None:
    model, task = ARCHITECTURES.get("cnn-1d")()
    stages = {"prune.structured": {"ratio": [0.1, 0.6]}, "quantize.static": None, "lowrank.cur": {}}
    space = build_space(config(preset="conservative", stages=stages), task, model)
    assert set(space.cards) == set(stages)
    ratio = space.cards["prune.structured"].parameter("ratio")
    assert ratio is not None
    assert (ratio.domain.low, ratio.domain.high) == (0.1, 0.6)  # type: ignore[attr-defined]
    exclude = space.cards["quantize.static"].parameter("exclude")
    assert exclude is not None
    assert exclude.domain == Choice(("ends", "last"))


def test_what_it_leaves_out_is_said_and_kept_for_who_asks() -> None:
    model, task = ARCHITECTURES.get("cnn-1d")()
    said = objections(config("openvino", preset="conservative"), model, task)
    assert said["quantize.half"].startswith("the preset conservative leaves it out")
    asked = config("openvino", preset="conservative", initial=[["quantize.half"]])
    assert "quantize.half" not in objections(asked, model, task)
    assert "quantize.half" in build_space(asked, task, model).cards
    assert "quantize.half" in build_space(config("openvino"), task, model).cards


def test_an_unknown_one_is_refused_with_its_path_before_anything_is_built() -> None:
    with pytest.raises(ConfigError, match=r"space\.preset: there is no preset 'conservativ'") as e:
        check_settings(config(preset="conservativ"))
    assert "did you mean 'conservative'" in e.value.hint


def test_studies_from_before_there_were_any_mean_the_same() -> None:
    old = config().model_dump(mode="json")
    del old["space"]["preset"]
    assert parse_config(old) == config()


def test_of_a_range_counts_what_the_domain_has() -> None:
    card = STAGES.get("quantize.weights").card()
    kept = narrow_as_far(card, {"bits": [8, 3], "block": [7]}, where="here")
    assert kept.parameter("bits").domain == Choice((8,))  # type: ignore[union-attr]
    assert kept.parameter("block") == card.parameter("block")
    card = STAGES.get("prune.structured").card()
    kept = narrow_as_far(card, {"ratio": [0.0, 0.2], "steps": [3, 90]}, where="here")
    assert kept.parameter("ratio").domain == Real(0.05, 0.2)  # type: ignore[union-attr]
    assert kept.parameter("steps").domain == Integer(3, 5)  # type: ignore[union-attr]
    kept = narrow_as_far(card, {"ratio": [0.95, 2.0], "steps": [5, 90]}, where="here")
    assert kept.parameter("ratio").domain == Choice((0.95,))  # type: ignore[union-attr]
    assert kept.parameter("steps").domain == Choice((5,))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("stage", "ranges", "wanted"),
    [
        ("distill", {"lr": [1e-4, 1e-2]}, 1e-2),  # usually 0.02
        ("lowrank.svd", {"ratio": [0.5, 0.8]}, 0.5),  # usually 0.4
        ("prune.structured", {"ratio": [0.1, 0.6]}, 0.3),
        ("prune.structured", {"steps": [4, 5]}, 4),
        ("quantize.weights", {"bits": [16, 4]}, 16),
    ],
)
def test_what_is_not_said_is_the_nearest_to_usual(
    stage: str, ranges: dict[str, Any], wanted: float
) -> None:
    """Not the least of a range: a learning rate of 1e-4 is a fiftieth of what is meant."""
    card = narrow(STAGES.get(stage).card(), ranges, where=stage)
    (name,) = ranges
    assert card.parameter(name).default == wanted  # type: ignore[union-attr]
    assert narrow_as_far(card, {"ratio": [0.96, 0.99]}, where="here") == card
