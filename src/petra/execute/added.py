"""What is registered beside petra's own, on its way to other processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from petra.core.metric import METRICS
from petra.core.registry import Registry
from petra.methods.table import STAGES
from petra.runtimes.table import RUNTIMES

_TRAVELLING: Mapping[str, Registry[Any]] = {
    "stages": STAGES,
    "runtimes": RUNTIMES,
    "metrics": METRICS,
}


def added_plugins() -> dict[str, Mapping[str, Any]]:
    """What `register_plugins` takes: all that is registered at run time in this process, and what
    was asked for of installed packages.
    """
    return {key: registry.added() for key, registry in _TRAVELLING.items()}


def register_plugins(plugins: Mapping[str, Mapping[str, Any]]) -> None:
    """Make the parent's run-time registrations known in this process."""
    for key, registry in _TRAVELLING.items():
        for name, item in plugins.get(key, {}).items():
            if name not in registry.names():
                registry.register(name, item)
