"""Recipes are legal, distinct, cheap first, within what is narrowed, and refused by no stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petra.config import StudyConfig, parse_config
from petra.core.errors import StoreError
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.target import Target
from petra.problem import build_space, objections
from petra.recipes import make_recipes, recipe_notes, stored_recipes
from petra.recipes.make import circumstances
from petra.recipes.portfolio import INT8, LONG, MEDIUM, RECIPES, SHORT
from petra.recipes.recipe import Circumstances
from petra.space.outline import ModelOutline
from petra.space.space import Space
from petra.store.store import Store
from petra.tasks.classification import classification
from petra.testing.architectures import ARCHITECTURES
from petra.testing.coverage import attempt
from petra.testing.studies import toy_study

# One of each family; all others are slow.
FEW = ("cnn-1d", "mlp", "lstm", "torch-transformer")
MANY = [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in ARCHITECTURES]
TRAINED = ("epochs", "epochs_between")


def config(**space: Any) -> StudyConfig:
    return parse_config({"workload": "digits", "budget": {"trials": 1}, "space": space})


def made(name: str, **given: Any) -> tuple[Space, tuple[Pipeline, ...]]:
    model, task = ARCHITECTURES.get(name)()
    study = config(**given)
    space = build_space(study, task, model, without=objections(study, model, task))
    return space, make_recipes(space, model, task, study.target)


def kinds(pipeline: Pipeline) -> list[str]:
    return [stage.kind for stage in pipeline]


def trains(pipeline: Pipeline) -> bool:
    return any(stage.params.get(name) for stage in pipeline for name in TRAINED)


@pytest.mark.parametrize("name", MANY)
def test_they_are_legal_distinct_and_begin_with_what_trains_nothing(name: str) -> None:
    space, recipes = made(name, max_length=6)
    assert recipes, "nothing to begin with"
    assert len(set(recipes)) == len(recipes) <= len(RECIPES)
    for pipeline in recipes:
        assert space.objection(pipeline) == ""
        assert space.normalize(pipeline) == pipeline
    order = [trains(pipeline) for pipeline in recipes]
    assert order == sorted(order), "what trains nothing comes first"


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_none_is_refused_when_it_runs(name: str) -> None:
    """With as little training and calibration as there is: structure decides what is refused."""
    cheap: Mapping[str, int] = {"epochs": 1, "samples": 32}
    for pipeline in made(name, max_length=6)[1]:
        stages = (
            StageSpec(s.kind, {**s.params, **{k: v for k, v in cheap.items() if s.params.get(k)}})
            for s in pipeline
        )
        cell = attempt(name, Pipeline(tuple(stages)))
        assert cell.outcome == "acts", f"{pipeline}: {cell.reason}"


def test_families_get_what_serves_them() -> None:
    cnn = made("cnn-1d")[1]
    assert kinds(cnn[0]) == ["quantize.static"]
    assert any("repair.reconstruct" in kinds(p) and not trains(p) for p in cnn)
    text = made("torch-transformer")[1]
    assert kinds(text[0]) == ["quantize.dynamic"]
    assert any(s.params.get("equalize") == "smooth" for p in text for s in p)
    assert all(s.params["optimizer"] == "adamw" for p in text for s in p if s.kind == "distill")
    recurrent = made("lstm")[1]
    assert not any("quantize.static" in kinds(p) for p in recurrent)


class ConvRecurrent(nn.Module):
    """A convolution before a recurrent layer, which have much of the parameters each."""

    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM]) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 64, 5)
        self.rnn, self.head = kind(64, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.rnn(torch.relu(self.conv(x)).transpose(1, 2))[1][0])
        return logits


@pytest.mark.parametrize(
    ("kind", "runtime", "first"),
    [
        (nn.LSTM, "onnxruntime", "dynamic"),
        (nn.GRU, "onnxruntime", "int8"),
        (nn.LSTM, "openvino", "int8"),
    ],
)
def test_integer_recurrent_layers_only_where_there_are_kernels(
    kind: type[nn.GRU] | type[nn.LSTM], runtime: str, first: str
) -> None:
    model, x = ConvRecurrent(kind).eval(), torch.randn(16, 4, 20)
    task = classification(*[(x, torch.arange(16) % 3)] * 3)
    here = circumstances(model, task, Target(runtime))
    assert {"convolutional", "recurrent"} <= here.traits
    (step, *_) = (s for s in INT8 if s is not None and s.suits(here.traits))
    assert (step.stage, step.params) == ("quantize.static", {"recurrent": first})


def test_narrowed_ranges_and_the_users_own_pipelines_are_respected() -> None:
    stages = {
        "prune.structured": {"ratio": [0.1, 0.25], "importance": "taylor"},
        "distill": {"epochs": [2, 3], "optimizer": "sgd"},
        "quantize.static": {},
    }
    space, recipes = made("mlp", stages=stages, max_length=3)
    assert {kind for p in recipes for kind in kinds(p)} == set(stages)
    for stage in (s for p in recipes for s in p):
        for name, domain in ((p.name, p.domain) for p in space.cards[stage.kind].parameters):
            assert name not in stage.params or domain.contains(stage.params[name]), (stage, name)
    model, task = ARCHITECTURES.get("mlp")()
    left = make_recipes(space, model, task, config().target, without=recipes[:1])
    assert left == recipes[1:]


def test_training_is_sized_by_data_and_model() -> None:
    def epochs(macs: int, items: int) -> list[int]:
        here = Circumstances(ModelOutline(()), macs, items)
        return [effort.of(here) for effort in (SHORT, MEDIUM, LONG)]

    assert epochs(10**5, 1000) == [11, 22, 43]  # steps count where there are few items
    assert epochs(10**6, 50_000) == [1, 3, 8]
    assert epochs(41 * 10**6, 45_000)[0] == 1  # ResNet-20
    assert epochs(10**10, 10**6) == [1, 1, 1]


def test_they_are_kept_with_the_study(tmp_path: Path) -> None:
    directory = toy_study(tmp_path / "study", trials=2)
    recipes = (Pipeline((StageSpec("tune", {"epochs": 2}),)), Pipeline((StageSpec("half"),)))
    with Store.open(directory, write=True) as store:
        assert stored_recipes(store) == (), "a study from before there were recipes has none"
        for name, value in recipe_notes(recipes).items():
            store.set_note(name, value)
        assert stored_recipes(store) == recipes
        store.set_note("recipes", [{"stage": 3}])
        with pytest.raises(StoreError, match="note recipes"):
            stored_recipes(store)
