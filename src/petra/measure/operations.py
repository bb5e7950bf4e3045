"""Costs that follow from a model's structure alone: multiply-accumulates."""

from __future__ import annotations

from torch import nn

from petra.model.flops import macs_by_module
from petra.tasks.inputs import Inputs, batch_size, call


def count_macs(model: nn.Module, example: Inputs) -> int:
    """Multiply-accumulates of one item, counted by operator (see `macs_by_module`)."""
    return macs_by_module(model, lambda m: call(m, example))[""] // batch_size(example)
