"""The table of executors. A new executor is one new file and one line here."""

from __future__ import annotations

from petra.core.announced import callable_item
from petra.core.registry import Registry
from petra.execute.base import MakeExecutor

_TABLE = {"local": "petra.execute.local:LocalExecutor"}

EXECUTORS: Registry[MakeExecutor] = Registry(
    "executor", _TABLE, group="petra.executors", check=callable_item
)
