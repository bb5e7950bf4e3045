"""The table of executors. A new executor is one new file and one line here."""

from __future__ import annotations

from petra.core.registry import Registry
from petra.execute.base import MakeExecutor

_TABLE = {"local": "petra.execute.local:LocalExecutor"}

EXECUTORS: Registry[MakeExecutor] = Registry("executor", _TABLE)
