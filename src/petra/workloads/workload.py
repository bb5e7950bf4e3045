"""The record of a reference problem: what it is, where its data lies, what others reach on it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from petra.tasks.base import Task

Build = Callable[..., "tuple[nn.Module, Task]"]


@dataclass(frozen=True)
class Published:
    """What others report of comparable models on the test split, from the least to the greatest,
    and where. Any difference between their setting and this one is said in `source`.
    """

    low: float
    high: float
    source: str

    def __str__(self) -> str:
        return f"{self.low:.4g}" if self.low == self.high else f"{self.low:.4g} to {self.high:.4g}"

    def place(self, value: float, *, maximize: bool) -> str:
        """Where a value lies: "within", "better" or "worse"."""
        if self.low <= value <= self.high:
            return "within"
        return "better" if (value > self.high) == maximize else "worse"


@dataclass(frozen=True)
class Workload:
    """A problem that a study file names: called, it returns a trained model and its task.

    `function` is one, or ``"module:attribute"``, imported when it is called; it gets `args` unless
    others are given. `files` are looked for under the data root. `metric` is the quality, and
    `maximize` whether more of it is better. `kept` begins the names of the weights that are trained
    on first use and kept, "" where nothing is.
    """

    name: str
    function: str | Build
    domain: str
    about: str
    args: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    metric: str = "accuracy"
    maximize: bool = True
    published: Published | None = None
    kept: str = ""

    def bound(self) -> Build:
        """The function with this problem's arguments as its defaults."""
        function: Any = self.function
        if isinstance(function, str):
            module, _, attribute = function.partition(":")
            function = getattr(importlib.import_module(module), attribute)
        return partial(function, **self.args)

    def __call__(self, **args: Any) -> tuple[nn.Module, Task]:
        return self.bound()(**args)
