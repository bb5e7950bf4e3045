"""What cannot act on a model is not drawn for it; a person may still set it."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from petra.core.errors import StageRefused
from petra.core.pipeline import Pipeline, StageSpec, Value
from petra.methods.base import Context, refusal
from petra.methods.table import STAGES
from petra.model.copies.copying import copy_model
from petra.model.outline import outline_of
from petra.space.moves import perturb
from petra.space.space import Space, StageCard
from petra.testing.architectures import ARCHITECTURES

LOWRANK = ("lowrank.svd", "lowrank.cur", "lowrank.tucker")


def clashes(card: StageCard, spec: StageSpec) -> bool:
    return any(
        all(spec.params.get(name) in values for name, values in clash.items())
        for clash in card.clashes
    )


@pytest.mark.parametrize("kind", LOWRANK)
def test_settings_that_clash_are_never_drawn_stepped_to_or_decoded(kind: str) -> None:
    card = STAGES.get(kind).card()
    rng = np.random.default_rng(0)
    drawn = [card.sample(rng) for _ in range(200)]
    space = Space({kind: card})
    stepped = [perturb(Pipeline((spec,)), space, rng) for spec in drawn]
    decoded = [card.decode(rng.random(card.width)) for _ in range(200)]
    found = [*drawn, *decoded, *(p.stages[0] for p in stepped if p)]
    assert {spec.params["rule"] for spec in found} >= {"budget", "ratio"}
    assert {spec.params["layers"] for spec in found} >= {1}
    assert not any(clashes(card, spec) for spec in found)


@pytest.mark.parametrize("kind", LOWRANK)
def test_a_person_who_sets_them_has_the_stages_refusal(kind: str) -> None:
    spec = STAGES.get(kind).card().normalize({"rule": "budget", "layers": 1})
    assert clashes(STAGES.get(kind).card(), spec)
    model, task = ARCHITECTURES.get("mlp")()
    stage = STAGES.get(kind).from_spec(spec, task)
    with pytest.raises(StageRefused, match="no budget"):
        stage.apply(copy_model(model), Context(task=task, teacher=model, seed=0))


PLAIN = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
CONVOLUTIONAL = nn.Sequential(nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.Flatten(), nn.Linear(48, 3))
EMBEDDED = nn.Sequential(nn.Embedding(9, 8), nn.Flatten(), nn.Linear(32, 8), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("kind", "name", "value", "able", "unable"),
    [
        ("quantize.static", "embeddings", "int8", EMBEDDED, PLAIN),
        ("quantize.qat", "embeddings", "int8", EMBEDDED, CONVOLUTIONAL),
        ("quantize.static", "exclude", "convolutions", CONVOLUTIONAL, PLAIN),
        ("quantize.static", "equalize", "smooth", PLAIN, CONVOLUTIONAL),
        ("quantize.dynamic", "embeddings", "float", EMBEDDED, PLAIN),
        ("quantize.dynamic", "convolutions", "float", CONVOLUTIONAL, EMBEDDED),
        ("quantize.dynamic", "recurrent", "float", nn.Sequential(nn.GRU(3, 3)), PLAIN),
        ("quantize.static", "recurrent", "dynamic", nn.Sequential(nn.LSTM(3, 3)), PLAIN),
        ("prune.structured", "importance", "bn_scale", CONVOLUTIONAL, PLAIN),
        ("tune", "penalty", "bn_l1", CONVOLUTIONAL, PLAIN),
        ("distill", "features", 3.0, nn.Sequential(CONVOLUTIONAL), PLAIN),
    ],
)
def test_what_a_model_lacks_is_not_offered(
    kind: str, name: str, value: Value, able: nn.Module, unable: nn.Module
) -> None:
    for model, offered in ((able, True), (unable, False)):
        parameter = STAGES.get(kind).card(outline_of(model)).parameter(name)
        assert parameter is not None
        assert parameter.domain.contains(value) is offered
        assert parameter.domain.contains(parameter.default)
        assert parameter.limits.contains(value)


def test_a_rehearsal_leaves_the_model_as_it_was() -> None:
    model, task = ARCHITECTURES.get("cnn-1d")()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    stage = STAGES.get("prune.structured")(ratio=0.5, round_to=4)  # type: ignore[call-arg]
    assert refusal(stage, model, task) == ""
    assert all(bool((t == before[name]).all()) for name, t in model.state_dict().items())
    assert "0 blocks" in refusal(STAGES.get("prune.depth")(), model, task)
