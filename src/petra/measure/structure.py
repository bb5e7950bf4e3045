"""Costs that follow from a model's structure alone: multiply-accumulates."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from petra.tasks.inputs import Inputs, batch_size, call


def count_macs(model: nn.Module, example: Inputs) -> int:
    """Multiply-accumulates of one item, counted by operator (convolutions and matrix products; half the FLOPs)."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call(model, example)
    return int(counter.get_total_flops()) // 2 // batch_size(example)
