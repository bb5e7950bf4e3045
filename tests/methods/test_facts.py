"""What holds for a model as it comes in: read off the model, not assumed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petra.core.pipeline import Pipeline, StageSpec
from petra.core.rng import derive_seed
from petra.execute.apply import apply_pipeline
from petra.intake.model import with_zeros_held, working_copy
from petra.methods.base import Context
from petra.methods.facts import facts_of
from petra.model.layers.quantized import Codes, DynamicQuantizedLinear
from petra.model.sparsity import hold_zeros
from petra.problem import build_space
from petra.space.effects import (
    DENSE_WEIGHTS,
    FLOAT_WEIGHTS,
    INITIAL_FACTS,
    INPUT_GRADIENTS,
    PLAIN_LAYERS,
    TRAINABLE,
)
from petra.tasks.base import Task
from petra.tasks.classification import classification

X = torch.randn(96, 16, generator=torch.Generator().manual_seed(0))
Y = X[:, :4].argmax(1)
TASK: Task = classification((X, Y), (X, Y), (X, Y))


def make() -> nn.Sequential:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.Linear(32, 4))


def sparse(pattern: Callable[[Tensor], Tensor]) -> nn.Sequential:
    model = make()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.mul_(pattern(layer.weight))  # type: ignore[operator, arg-type]
    return model


def half_of_all(weight: Tensor) -> Tensor:
    return (weight.abs() > weight.abs().median()).float()


def two_of_four(weight: Tensor) -> Tensor:
    fours = weight.abs().reshape(-1, 4)
    return (fours >= fours.sort(1).values[:, 2:3]).float().reshape(weight.shape)


def run(model: nn.Module, *stages: StageSpec) -> nn.Module:
    def context(prefix: Pipeline) -> Context:
        return Context(task=TASK, teacher=model, seed=derive_seed(0, prefix.key))

    pipeline = Pipeline(stages)
    return apply_pipeline(model, pipeline, context, cache=None, on_stage=lambda i, s: None)[0]


def test_an_ordinary_model_has_them_all() -> None:
    assert facts_of(make()) == INITIAL_FACTS
    assert facts_of(make().requires_grad_(False)) == INITIAL_FACTS, "frozen for another training"
    model, remarks = working_copy(make().half())
    assert facts_of(model) == INITIAL_FACTS
    assert "float32 copy" in remarks[0]


@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        (StageSpec("quantize.dynamic"), {FLOAT_WEIGHTS, TRAINABLE}),
        (StageSpec("lowrank.svd", {"rule": "ratio", "ratio": 0.2}), {PLAIN_LAYERS}),
        (StageSpec("prune.unstructured"), {DENSE_WEIGHTS}),
    ],
    ids=["dynamic", "svd", "unstructured"],
)
def test_a_model_that_a_stage_has_treated_is_known(stage: StageSpec, missing: set[str]) -> None:
    assert facts_of(run(make(), stage)) == INITIAL_FACTS - missing
    assert INPUT_GRADIENTS not in missing


def test_weights_that_are_integers_are_no_float_weights() -> None:
    model = make()
    for layer in (model[0], model[2]):
        codes = nn.Parameter(torch.ones(32, 32).to(torch.int8), requires_grad=False)
        layer.register_parameter("weight", codes)
    assert facts_of(model) == INITIAL_FACTS - {FLOAT_WEIGHTS, TRAINABLE}


@pytest.mark.parametrize("pattern", [half_of_all, two_of_four])
def test_a_model_that_comes_in_sparse_stays_so(pattern: Callable[[Tensor], Tensor]) -> None:
    model = sparse(pattern)
    (remark,) = with_zeros_held(model)
    assert remark.startswith("46% of the weights come in as zeros")
    kept: Any = [getattr(layer, "keep_zeros", "") for layer in model]
    assert kept == [pattern.__name__.replace("half_of_all", "anywhere"), "", *kept[:1], ""]
    assert facts_of(model) == INITIAL_FACTS - {DENSE_WEIGHTS}
    tuned: Any = run(model, StageSpec("tune", {"epochs": 1, "batch_size": 64}))
    for i in (0, 2):
        assert not torch.equal(tuned[i].weight, model[i].weight)
        assert torch.equal(tuned[i].weight == 0, model[i].weight == 0)


def test_zeros_that_nobody_pruned_are_no_pattern() -> None:
    model = make()
    nn.init.zeros_(model[3].weight)  # type: ignore[arg-type]
    assert hold_zeros(model) == 0.0
    assert not any(hasattr(layer, "keep_zeros") for layer in model)


def test_the_space_of_a_study_begins_with_them() -> None:
    from petra.config import parse_config

    config = parse_config({"budget": {"trials": 1}, "target": {"runtime": "onnxruntime"}}, where="")
    model = sparse(half_of_all)
    with_zeros_held(model)
    space = build_space(config, TASK, model)
    assert space.objection(Pipeline((StageSpec("prune.unstructured"),))) == (
        "stage 1: prune.unstructured needs dense weights"
    )
    assert space.is_legal(Pipeline((StageSpec("tune"),)))
    assert build_space(config, TASK).facts == INITIAL_FACTS


def test_codes_of_a_quantized_model_count() -> None:
    codes = Codes(nn.Parameter(torch.ones(4, 16).to(torch.int8), False), torch.ones(4, 1))
    assert FLOAT_WEIGHTS not in facts_of(nn.Sequential(DynamicQuantizedLinear(codes, None)))
