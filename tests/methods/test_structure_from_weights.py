"""Which settings decide by the weights what a model looks like: what costs are known before
training.
"""

from __future__ import annotations

import pytest
import torch

from petra.core.pipeline import Pipeline, StageSpec, Value
from petra.execute.apply import apply_pipeline
from petra.methods.base import Context
from petra.methods.table import STAGES
from petra.model.copies.copying import copy_model
from petra.model.outline import outline_of
from petra.testing.stage_suite import small_problem

FIXED: list[tuple[str, dict[str, Value]]] = [
    ("prune.structured", {"spread": "per_layer", "ratio": 0.4, "round_to": 4}),
    ("lowrank.svd", {"rule": "ratio", "ratio": 0.3}),
    ("lowrank.cur", {"rule": "ratio", "ratio": 0.3}),
    ("lowrank.tucker", {"rule": "ratio", "ratio": 0.3}),
]
DECIDED: list[tuple[str, dict[str, Value]]] = [
    ("prune.structured", {"spread": "global"}),
    ("prune.structured", {"spread": "per_block"}),
    ("prune.heads", {"spread": "global"}),
    ("prune.depth", {}),
    ("lowrank.svd", {"rule": "energy"}),
    ("lowrank.tucker", {"rule": "budget"}),
    ("quantize.static", {"keep_float": 2}),
    ("quantize.qat", {"keep_float": 1}),
]


def spec(kind: str, params: dict[str, Value]) -> StageSpec:
    return STAGES.get(kind).card().normalize(params)


@pytest.mark.parametrize(("kind", "params"), FIXED, ids=str)
def test_structure_that_no_weight_decides_is_that_of_other_weights_too(
    kind: str, params: dict[str, Value]
) -> None:
    model, task = small_problem()
    stage = STAGES.get(kind).from_spec(spec(kind, params), task, outline_of(model))
    assert not stage.structure_from_weights
    generator = torch.Generator().manual_seed(1)
    other = copy_model(model)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(torch.empty_like(p).uniform_(0.1, 1.9, generator=generator))
    shapes = []
    for given in (model, other):
        found, _ = apply_pipeline(
            given,
            Pipeline((spec(kind, params),)),
            lambda prefix: Context(task=task, teacher=model, seed=0),
            cache=None,
            on_stage=lambda index, stage: None,
        )
        shapes.append({name: tuple(p.shape) for name, p in found.named_parameters()})
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("kind", "params"), DECIDED, ids=str)
def test_what_weights_decide_is_said(kind: str, params: dict[str, Value]) -> None:
    model, task = small_problem()
    stage = STAGES.get(kind).from_spec(spec(kind, params), task, outline_of(model))
    assert stage.structure_from_weights
