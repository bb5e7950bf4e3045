"""The exporter's table of operators, parsed once a process.

`torch.onnx.export` reads the source of some 500 translations anew at every call, which for a small
model is a third of an export. What a call adds to its table stays its own. Translations of
operators that are not there are left out, so a process that has got more operators since parses
again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any


@contextmanager
def parsed_once() -> Iterator[None]:
    """Inside, exports begin with a copy of the table that the process's first one parsed.

    A worker that exports before it forks has parsed it for all its forks. Where PyTorch keeps no
    such table, nothing is changed.
    """
    import torch

    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:
        yield
        return
    original = ONNXRegistry.__dict__["from_torchlib"]

    def from_torchlib(cls: type[ONNXRegistry], /, **settings: Any) -> Any:
        operators = frozenset(torch._C._dispatch_get_all_op_names())
        return _copied(_parsed(original.__get__(None, cls), operators, *settings.items()))

    setattr(ONNXRegistry, "from_torchlib", classmethod(from_torchlib))  # noqa: B010
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = original  # type: ignore[method-assign]


@lru_cache(maxsize=2)
def _parsed(parse: Any, operators: frozenset[str], *settings: tuple[str, Any]) -> Any:
    return parse(**dict(settings))


def _copied(registry: Any) -> Any:
    """One to which translations can be added."""
    fresh = copy.copy(registry)
    fresh.functions = {target: list(found) for target, found in registry.functions.items()}
    return fresh
