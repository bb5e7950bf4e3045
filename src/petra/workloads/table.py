"""The table of workloads: reference problems, functions that return a trained model and task."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from petra.core.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from petra.tasks.base import Task

WORKLOADS: Registry[Callable[..., tuple[nn.Module, Task]]] = Registry(
    "workload",
    {
        "digits": "petra.workloads.digits:digits",
        "cifar10": "petra.workloads.cifar10:cifar10",
        "glue": "petra.workloads.glue:glue",
        "sst2": "petra.workloads.glue:sst2",
    },
)
