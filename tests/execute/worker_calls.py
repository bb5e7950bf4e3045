"""Functions that workers are called with, and how their processes are seen to end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import cloudpickle
import psutil

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the worker cannot import test modules

Note = Callable[[object], None]


def pid_of(payload: Any, note: Note) -> int:
    """The warm process, of which every call is a fork."""
    return os.getppid()


def pid_of_call(payload: Any, note: Note) -> int:
    return os.getpid()


def gone(pid: int, within_s: float = 20.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def hang(payload: Any, note: Note) -> None:
    note("asleep")
    time.sleep(1000)
