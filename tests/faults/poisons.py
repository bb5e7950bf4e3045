"""Faults that people's stages, metrics and data can have, each in a line or a few.

A `Poison` acts inside a stage, on its model and context. `words` are what the trial's failure must
say; None when the candidate may complete, or trip over itself: only the next one counts. What the
metric, the loss, the augmentation or the data do wrong is switched on by the stage: `FLAGS` for
what runs in its own process, a mark in the predictions for the metric.
"""

from __future__ import annotations

import atexit
import builtins
import ctypes
import gc
import logging
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from petra.core.errors import PetraError, StoreError
from petra.core.measurement import Measurement
from petra.core.trial import StageTrace
from petra.methods.base import Context
from petra.methods.table import STAGES
from petra.runtimes.table import RUNTIMES
from petra.workers.failures import TimeLimitExceeded

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


def _keep(value: object) -> None:
    KEPT.append(value)


def _enter_and_keep(context: Any) -> None:
    context.__enter__()
    _keep(context)


def _each(*actions: Callable[[], Any]) -> Act:
    def act(model: nn.Module, context: Context) -> None:
        for action in actions:
            action()

    return act


def _set(owner: Callable[[], object], name: str, value: object) -> Act:
    return _each(lambda: setattr(owner(), name, value))


def _raise(make: Callable[[], BaseException]) -> Act:
    def act(model: nn.Module, context: Context) -> None:
        raise make()

    return act


def _return(make: Callable[[nn.Module], Any]) -> Act:
    return lambda model, context: make(model)


def _spin() -> None:
    while True:
        time.sleep(0)


def _daemonize() -> None:
    if not os.fork():
        os.setsid()
        if not os.fork():
            _spin()
        os._exit(0)


def _fork_and_go_on(model: nn.Module, context: Context) -> None:
    os.fork()


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


def _change_class(model: nn.Module, context: Context) -> None:
    type(model).forward = lambda self, x: x.new_zeros(len(x), 3)


def _hook_teacher(model: nn.Module, context: Context) -> None:
    context.teacher.register_forward_hook(lambda module, inputs, output: output * 0)


def _enter(make: Callable[[], Any]) -> Act:
    return _each(lambda: _enter_and_keep(make()))


def _report_nonsense(model: nn.Module, context: Context) -> None:
    context.progress(object(), "many", {})  # type: ignore[arg-type]


STATE = {
    "working directory": _each(lambda: os.chdir("/")),
    "environment": _each(os.environ.clear),
    "default dtype": _each(lambda: torch.set_default_dtype(torch.float64)),
    "default device": _each(lambda: torch.set_default_device("meta")),
    "default tensor type": _each(lambda: torch.set_default_tensor_type("torch.DoubleTensor")),
    "gradients off": _each(lambda: torch.set_grad_enabled(False)),
    "inference mode": _enter(torch.inference_mode),
    "threads": _each(lambda: torch.set_num_threads(3)),
    "threads between operators": _each(lambda: torch.set_num_interop_threads(3)),
    "deterministic": _each(lambda: torch.use_deterministic_algorithms(True)),
    "matmul precision": _each(lambda: torch.set_float32_matmul_precision("medium")),
    "autocast": _each(lambda: torch.set_autocast_enabled("cpu", True)),
    "seeds": _each(lambda: torch.manual_seed(9), lambda: random.seed(9), lambda: np.random.seed(9)),
    "umask": _each(lambda: os.umask(0o777)),
    "signal handlers": _each(*(lambda n=n: signal.signal(n, signal.SIG_IGN) for n in (15, 17, 10))),
    "a module in the way": _each(lambda: sys.modules.update({"onnx": sys, "onnxscript": sys})),
    "imports blocked": _each(sys.meta_path.clear, sys.path.clear),
    "streams": _each(lambda: setattr(sys, "stdout", None), lambda: setattr(sys, "stderr", None)),
    "closed streams": _each(lambda: os.close(1), lambda: os.close(2)),
    "warnings are errors": _each(lambda: warnings.simplefilter("error")),
    "logging": _each(lambda: logging.disable(logging.CRITICAL), logging.getLogger().handlers.clear),
    "oneDNN off": _set(lambda: torch.backends.mkldnn, "enabled", False),
    "quantization engine": _set(lambda: torch.backends.quantized, "engine", "none"),
    "anomaly mode": _each(lambda: torch.autograd.set_detect_anomaly(True)),
    "hooks of all modules": _each(
        lambda: torch.nn.modules.module.register_module_forward_hook(
            lambda m, i, o: o * 0 if "Linear" in str(m) else o
        )
    ),
    "saved tensors hooks": _enter(
        lambda: torch.autograd.graph.saved_tensors_hooks(lambda t: t * 0, lambda t: t)
    ),
    "function mode": _enter(lambda: torch.overrides.TorchFunctionMode()),
    "a thread": _each(lambda: threading.Thread(target=_spin, daemon=True).start()),
    "a child": _each(lambda: subprocess.Popen(["sleep", "1000"])),
    "a daemon": _each(_daemonize),
    "files": _each(lambda: _keep([open(os.devnull) for _ in range(500)])),  # noqa: PTH123, SIM115
    "a socket": _each(lambda: _keep(socket.create_server(("127.0.0.1", 0)))),
    "a patched layer": _set(
        lambda: nn.Linear, "forward", lambda self, x: x.new_zeros(len(x), self.out_features)
    ),
    "a patched function": _set(
        lambda: functional, "linear", lambda x, w, b=None: x.new_zeros(len(x), len(w))
    ),
    "a patched operator": _set(
        lambda: torch.Tensor, "__matmul__", lambda a, b: a.new_zeros(len(a), b.shape[1])
    ),
    "the model's class": _change_class,
    "NumPy": _each(lambda: setattr(np, "load", None), lambda: np.seterr(all="raise")),
    "builtins": _each(
        lambda: setattr(builtins, "sum", lambda *a: 0), lambda: setattr(builtins, "open", None)
    ),
    "time": _each(lambda: setattr(time, "perf_counter", lambda: 0.0)),
    "garbage": _each(gc.disable, lambda: _keep(bytearray(200 << 20))),
    "recursion": _each(lambda: sys.setrecursionlimit(10_000)),
    "tracing": _each(
        lambda: sys.settrace(lambda *a: None), lambda: sys.setprofile(lambda *a: None)
    ),
    "open files allowed": _each(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))),
    "priority": _each(lambda: os.nice(5)),
    "cores": _each(lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})),
    "at exit": _each(lambda: atexit.register(_spin)),
    "another tune": _each(
        lambda: STAGES._table.clear(), lambda: RUNTIMES._table.update(onnxruntime="os:path")
    ),
    "the teacher trains": lambda model, context: context.teacher.train(),
    "the teacher's hooks": _hook_teacher,
    "a fork goes on": _fork_and_go_on,
}


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
    "segfault": (_each(lambda: ctypes.string_at(0)), "SIGSEGV"),
    "abort": (_each(os.abort), "SIGABRT"),
    "exit 0": (_each(lambda: os._exit(0)), "exited with code 0"),
    "exit 3": (_each(lambda: os._exit(3)), "exited with code 3"),
    "kill": (_each(lambda: os.kill(os.getpid(), signal.SIGKILL)), "SIGKILL"),
    "kill the parent": (_each(lambda: os.kill(os.getppid(), signal.SIGKILL), _spin), "SIGKILL"),
    "alarm": (_each(lambda: signal.setitimer(signal.ITIMER_REAL, 0.01), _spin), "SIGALRM"),
    "pipes closed": (_each(lambda: os.closerange(3, 256)), "exited with code"),
    "noise in the pipes": (_each(_write_everywhere), "claims to have"),
    "file size": (_each(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))), ""),
    "memory": (
        _each(
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
    found += [Poison("metric", name, _each(), words) for name, (_, words) in SCORES.items()]
    found += [
        Poison("loss or data", name, _each(lambda n=name: FLAGS.add(n)), words)
        for name, words in DATA.items()
    ]
    return found


def find(kind: str, name: str) -> Poison:
    """The one of this name; workers, to which functions without a name cannot be sent, look it up
    themselves.
    """
    return next(poison for poison in poisons() if (poison.kind, poison.name) == (kind, name))
