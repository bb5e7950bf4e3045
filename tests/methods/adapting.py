"""Pipelines with `adapt` on small transformers, and what they do."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from petra.core.pipeline import Pipeline, StageSpec, Value
from petra.core.rng import derive_seed
from petra.core.trial import StageTrace
from petra.execute.apply import apply_pipeline
from petra.execute.cache import PrefixCache
from petra.methods.adapt.folding import fold
from petra.methods.base import Context
from petra.methods.table import STAGES
from petra.model.outline import outline_of
from petra.tasks.base import Task
from petra.tasks.inputs import call, main_output, predictions
from petra.testing.architectures import ARCHITECTURES

OFF: Mapping[str, Value] = {"lora": 0}
QUICK: Mapping[str, Value] = {"epochs": 1, "lr": 0.01, "batch_size": 32}

KINDS: Mapping[str, Mapping[str, Value]] = {
    "serial": {**OFF, "serial": 3},
    "serial at both": {**OFF, "serial": 3, "serial_at": "both"},
    "parallel": {**OFF, "parallel": 3, "scaling": 4.0},
    "prefix": {**OFF, "prefix": 3},
    "prompt": {**OFF, "prompt": 3},
    "lora": {"lora": 3},
    "rslora": {"lora": 3, "lora_kind": "rslora", "lora_targets": "attention"},
    "dora": {"lora": 3, "lora_kind": "dora", "lora_targets": "all"},
    "ia3": {**OFF, "ia3": True},
    "bitfit": {**OFF, "bitfit": True},
}
MERGED = ("lora", "rslora", "dora", "ia3", "bitfit")
ALL: Mapping[str, Value] = {
    "serial": 3,
    "parallel": 3,
    "prefix": 2,
    "prompt": 2,
    "lora": 3,
    "lora_kind": "dora",
    "lora_targets": "all",
    "ia3": True,
    "bitfit": True,
    "serial_at": "both",
}


def problem(name: str = "bert") -> tuple[nn.Module, Task]:
    return ARCHITECTURES.get(name)()


def adapt(**params: Value) -> StageSpec:
    return StageSpec("adapt", {**QUICK, **params})


def run(
    given: tuple[nn.Module, Task], *stages: StageSpec, cache: PrefixCache | None = None
) -> tuple[nn.Module, tuple[StageTrace, ...]]:
    model, task = given
    outline = outline_of(model)
    full = [STAGES.get(s.kind).card_for(task, outline).normalize(s.params) for s in stages]

    def context(prefix: Pipeline) -> Context:
        return Context(task=task, teacher=model, seed=derive_seed(0, prefix.key))

    return apply_pipeline(
        model, Pipeline(tuple(full)), context, cache=cache, on_stage=lambda index, spec: None
    )


def numbers(trace: StageTrace) -> Mapping[str, Any]:
    found: Any = trace.details["adapt"]
    return found


def outputs(model: nn.Module, task: Task, items: int = 16) -> Tensor:
    if not isinstance(model, torch.fx.GraphModule):  # whose mode is baked in
        model.eval()
    with torch.no_grad():
        return main_output(predictions(call(model, task.example(items))))


def assert_folds(model: nn.Module, task: Task, atol: float = 1e-4) -> nn.Module:
    """Folded in, what can be, it computes the same."""
    folded = copy.deepcopy(model)
    fold(folded)
    torch.testing.assert_close(outputs(folded, task), outputs(model, task), rtol=atol, atol=atol)
    return folded
