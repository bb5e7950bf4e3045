"""Faults that people's stages, metrics and data can have, each in a line or a few.

A `Poison` acts inside a stage, on its model and context. `words` are what the trial's failure must
say; None when the candidate may complete, or trip over itself: only the next one counts. What the
metric, the loss, the augmentation or the data do wrong is switched on by the stage: `FLAGS` for
what runs in its own process, a mark in the predictions for the metric.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from poison_acts import FLAGS, Act, Applied, Poison, each, spin
from poison_state import STATE
from torch import nn

from petra.core.errors import PetraError, StoreError
from petra.core.measurement import Measurement
from petra.core.trial import StageTrace
from petra.methods.base import Context
from petra.workers.failures import TimeLimitExceeded


def _raise(make: Callable[[], BaseException]) -> Act:
    def act(model: nn.Module, context: Context) -> None:
        raise make()

    return act


def _return(make: Callable[[nn.Module], Any]) -> Act:
    return lambda model, context: make(model)


def _write_everywhere() -> None:
    for fd in range(3, 64):
        try:
            os.set_blocking(fd, False)
            os.write(fd, b"\xff" * 64)
        except OSError:
            continue


def _spoil(tensors: Callable[[Context], Any]) -> Act:
    def act(model: nn.Module, context: Context) -> None:
        with torch.no_grad():
            for tensor in tensors(context):
                tensor.zero_()

    return act


def _batch(context: Context) -> list[torch.Tensor]:
    held = vars(context.task.train.source)
    return [tensor for tensor in held.values() if isinstance(tensor, torch.Tensor)]


def _report_nonsense(model: nn.Module, context: Context) -> None:
    context.progress(object(), "many", {})  # type: ignore[arg-type]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


class Unsendable(Exception):
    def __reduce__(self) -> Any:
        raise ZeroDivisionError


class Mine(PetraError):
    """Somebody's own subclass."""


class Crafted:
    """Would run code where it is unpickled."""

    def __reduce__(self) -> Any:
        return (os._exit, (13,))


def _deep(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


def _endless() -> list[Any]:
    nested: list[Any] = []
    nested.append(nested)
    return nested


RAISED: dict[str, tuple[Callable[[], BaseException], str]] = {
    "SystemExit": (lambda: SystemExit("enough"), "SystemExit: enough"),
    "KeyboardInterrupt": (lambda: KeyboardInterrupt(), "KeyboardInterrupt"),
    "GeneratorExit": (lambda: GeneratorExit(), "GeneratorExit"),
    "StopIteration": (lambda: StopIteration(3), "StopIteration"),
    "BaseException": (lambda: BaseException("base"), "BaseException: base"),
    "a group": (lambda: ExceptionGroup("several", [ValueError("one")]), "several"),
    "no text": (lambda: Unspeakable(), "cannot be shown"),
    "a long text": (lambda: ValueError("x" * 20_000_000), "20000000 characters"),
    "text that is none": (lambda: ValueError("a\udcffb\x1b[31m\x00"), "ValueError"),
    "unpicklable": (lambda: Unsendable("stays"), "Unsendable: stays"),
    "somebody's PetraError": (lambda: Mine("mine", hint="mine too"), "Mine: mine"),
    "StoreError": (lambda: StoreError("not the store's"), "not the store's"),
    "a time limit that is none": (
        lambda: TimeLimitExceeded(1.0, note=None, peak_memory_mb=0),
        "TimeLimitExceeded",
    ),
    "MemoryError": (lambda: MemoryError(), "MemoryError"),
    "OSError": (lambda: OSError(28, "No space left on device"), "No space left"),
}
RETURNED: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "nothing": (lambda model: 0, "not (model, StageTrace)"),
    "no model": (lambda model: (3, StageTrace("x")), "not (model, StageTrace)"),
    "an object in the trace": (lambda model: _traced(model, {"a": object()}), "only JSON data"),
    "a crafted object": (lambda model: _traced(model, {"a": Crafted()}), "only JSON data"),
    "a large number": (lambda model: _traced(model, {"a": 10**5000}), "cannot be stored"),
    "a deep trace": (lambda model: _traced(model, {"a": _deep(100_000)}), "RecursionError"),
    "an endless trace": (lambda model: _traced(model, {"a": _endless()}), "RecursionError"),
    "no layers": (lambda model: (model, StageTrace("x", touched=5)), "TypeError"),
    "weights that are NaN": (lambda model: _traced(_filled(model, float("nan")), {}), "NaN"),
}
DEATHS: dict[str, tuple[Act, str]] = {
    "segfault": (each(lambda: ctypes.string_at(0)), "SIGSEGV"),
    "abort": (each(os.abort), "SIGABRT"),
    "exit 0": (each(lambda: os._exit(0)), "exited with code 0"),
    "exit 3": (each(lambda: os._exit(3)), "exited with code 3"),
    "kill": (each(lambda: os.kill(os.getpid(), signal.SIGKILL)), "SIGKILL"),
    "kill the parent": (each(lambda: os.kill(os.getppid(), signal.SIGKILL), spin), "SIGKILL"),
    "alarm": (each(lambda: signal.setitimer(signal.ITIMER_REAL, 0.01), spin), "SIGALRM"),
    "pipes closed": (each(lambda: os.closerange(3, 256)), "exited with code"),
    "noise in the pipes": (each(_write_everywhere), "claims to have"),
    "file size": (each(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))), ""),
    "memory": (
        each(
            lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 20, 1 << 20)),
            lambda: bytearray(1 << 28),
        ),
        "",
    ),
    "the teacher": (_spoil(lambda context: context.teacher.parameters()), "changed the teacher"),
    "the data": (_spoil(_batch), "changed the data"),
    "progress": (_report_nonsense, "TypeError"),
}
SCORES: dict[str, tuple[Callable[[], Any], str | None]] = {
    "NaN": (lambda: Measurement(float("nan")), "returned nan"),
    "infinite": (lambda: Measurement(float("inf")), "returned inf"),
    "a large number": (lambda: Measurement(10**400), "returned no numbers"),
    "nothing": (lambda: None, "returned NoneType"),
    "a float": (lambda: 0.5, "returned float"),
    "text": (lambda: Measurement("good"), "returned no numbers"),  # type: ignore[arg-type]
    "a vector": (lambda: Measurement(torch.ones(3)), "returned no numbers"),
    "an error of NaN": (lambda: Measurement(0.5, float("nan"), 3), "standard error of nan"),
    "no items": (lambda: Measurement(0.5, 0.0, 0), "over 0 items"),
    "a tensor": (lambda: Measurement(torch.tensor(0.5), torch.tensor(0.1), np.int64(3)), None),
    "raises": (lambda: 1 / 0, "ZeroDivisionError: division by zero (in "),
    "SystemExit": (lambda: sys.exit(0), "SystemExit"),
    "dies": (lambda: os._exit(0), "exited with code 0"),
    "leaves a dtype": (lambda: (torch.set_default_dtype(torch.float64), Measurement(0.5))[1], None),
}
DATA = {
    "loss raises": "RuntimeError: the loss is broken (in ",
    "loss is NaN": "loss is nan",
    "augment raises": "ValueError: cannot augment (in ",
    "augment returns nothing": "",
    "items raise": "KeyError",
    "items exit": "SystemExit",
}


def _traced(model: nn.Module, details: dict[str, Any]) -> Applied:
    with torch.no_grad():
        next(model.parameters()).add_(0.25)
    return model, StageTrace("x", ("0",), details=details)


def _filled(model: nn.Module, value: float) -> nn.Module:
    with torch.no_grad():
        next(model.parameters()).fill_(value)
    return model


def poisons() -> list[Poison]:
    """All of them, state first."""
    found = [Poison("state left behind", name, act) for name, act in STATE.items()]
    found += [
        Poison("exception", name, _raise(make), words) for name, (make, words) in RAISED.items()
    ]
    found += [
        Poison("odd result", name, _return(make), words) for name, (make, words) in RETURNED.items()
    ]
    found += [Poison("death or damage", name, act, words) for name, (act, words) in DEATHS.items()]
    found += [Poison("metric", name, each(), words) for name, (_, words) in SCORES.items()]
    found += [
        Poison("loss or data", name, each(lambda n=name: FLAGS.add(n)), words)
        for name, words in DATA.items()
    ]
    return found


def find(kind: str, name: str) -> Poison:
    """The one of this name; workers, to which functions without a name cannot be sent, look it up
    themselves.
    """
    return next(poison for poison in poisons() if (poison.kind, poison.name) == (kind, name))
