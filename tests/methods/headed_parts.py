"""Attention written in many ways, and its heads."""

from __future__ import annotations

import pytest
import torch
from sequences import sequence_problem
from torch import Tensor, nn

from petra.methods.base import Context
from petra.tasks.base import Task
from petra.tasks.inputs import call, prediction


def architecture(name: str) -> tuple[nn.Module, Task]:
    if name == "torch":
        return sequence_problem()
    pytest.importorskip("transformers")
    from petra.testing.architectures import hugging_face

    model, task = getattr(hugging_face, name)()
    return model, task


def context(model: nn.Module, task: Task) -> Context:
    return Context(task=task, teacher=model, seed=1)


def logits(model: nn.Module, task: Task, n: int = 6) -> Tensor:
    with torch.no_grad():
        return prediction(call(model, task.example(n)))
