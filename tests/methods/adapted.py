"""Small transformers with modules in them, as the stage leaves them when it does not merge."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from petra.core.trial import StageTrace
from petra.methods.adapt.stage import Adapt
from petra.methods.base import Context
from petra.model.copies.copying import copy_model
from petra.tasks.base import Task
from petra.tasks.inputs import call, main_output, predictions
from petra.testing.architectures import ARCHITECTURES

EACH: dict[str, dict[str, Any]] = {
    "serial": {"serial": 3, "serial_at": "both", "activation": "gelu", "dropout": 0.1},
    "parallel": {"parallel": 4, "scaling": 4.0},
    "prefix": {"prefix": 3},
    "lora": {"lora": 2, "lora_targets": "all"},
    "rslora": {"lora": 3, "lora_kind": "rslora"},
    "dora": {"lora": 2, "lora_kind": "dora", "lora_targets": "attention"},
    "ia3": {"ia3": True},
    "bitfit": {"bitfit": True},
    "prompt": {"prompt": 2},
}
"""Settings of every kind of module, alone."""
ALL: dict[str, Any] = {
    "serial": 3,
    "parallel": 1,
    "prefix": 3,
    "lora": 2,
    "lora_targets": "all",
    "ia3": True,
    "bitfit": True,
    "prompt": 2,
}
"""All of them in one layer."""


@cache
def problem(name: str) -> tuple[nn.Module, Task]:
    """A model of the zoo and a task for it: copy the model before it is changed."""
    return ARCHITECTURES.get(name)()


def adapted(name: str, **settings: Any) -> tuple[nn.Module, StageTrace]:
    """The model with modules of these settings beside its layers, whose values are not those that
    they start with, and the stage's trace.
    """
    base, task = problem(name)
    return around_layers_of(base, task, **settings)


def around_layers_of(base: nn.Module, task: Task, **settings: Any) -> tuple[nn.Module, StageTrace]:
    """The same of any model, which stays as it is."""
    stage = replace(Adapt(**{"lora": 0, **settings}, merge=False), epochs=0)
    return changed(*stage.apply(copy_model(base), Context(task, base, seed=0)))


def changed(model: nn.Module, trace: StageTrace) -> tuple[nn.Module, StageTrace]:
    """With other values of all that may be trained."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.02 * torch.randn(p.shape, generator=generator))
    return model.eval(), trace


@torch.no_grad()
def outputs(model: nn.Module, task: Task) -> Tensor:
    return main_output(predictions(call(model.eval(), task.example(4))))
