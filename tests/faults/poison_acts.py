"""What a fault is, and the acts that faults are made of."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from petra.core.trial import StageTrace
from petra.methods.base import Context

Applied = tuple[nn.Module, StageTrace]
Act = Callable[[nn.Module, Context], Any]
FLAGS: set[str] = set()
KEPT: list[object] = []  # what a fault leaves lying about


@dataclass(frozen=True)
class Poison:
    """`act` returns None to let the stage go on as it should, anything else to have the stage
    return that.
    """

    kind: str
    name: str
    act: Act
    words: str | None = None


def keep(value: object) -> None:
    KEPT.append(value)


def _enter_and_keep(context: Any) -> None:
    context.__enter__()
    keep(context)


def each(*actions: Callable[[], Any]) -> Act:
    def act(model: nn.Module, context: Context) -> None:
        for action in actions:
            action()

    return act


def set_to(owner: Callable[[], object], name: str, value: object) -> Act:
    return each(lambda: setattr(owner(), name, value))


def spin() -> None:
    while True:
        time.sleep(0)


def enter(make: Callable[[], Any]) -> Act:
    return each(lambda: _enter_and_keep(make()))
