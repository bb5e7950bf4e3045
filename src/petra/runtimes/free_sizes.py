"""Inputs to trace a model with, and which of their sizes stay free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from petra.core.interface import Interface
from petra.tasks.inputs import Inputs, batch_interface, batch_size, map_inputs, named

Free = Mapping[int, Mapping[int, Any]]
"""By the identity of an input's tensor: the axes whose size is free, as torch.export takes them."""


def free_axes(example: Inputs, interface: Interface | None) -> Free:
    """The axes of these inputs that stay free, by `interface`: of items of one shape, the batch."""
    interface = interface or batch_interface(example)
    axes = {spec.name: spec.free for spec in interface.inputs}
    return {
        id(tensor): dict.fromkeys(axes[name], torch.export.Dim.DYNAMIC)
        for name, tensor in named(example).items()
    }


def traced_example(example: Inputs) -> Inputs:
    """Inputs to trace with: of at least two items, because tracing fixes a dimension of one."""
    return map_inputs(example, lambda t: torch.cat([t, t])) if batch_size(example) == 1 else example
