"""Faults that leave something behind in the process: settings, patches, threads, open files."""

from __future__ import annotations

import atexit
import builtins
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

import numpy as np
import torch
from poison_acts import each, enter, keep, set_to, spin
from torch import nn
from torch.nn import functional

from petra.methods.base import Context
from petra.methods.table import STAGES
from petra.runtimes.table import RUNTIMES


def _daemonize() -> None:
    if not os.fork():
        os.setsid()
        if not os.fork():
            spin()
        os._exit(0)


def _fork_and_go_on(model: nn.Module, context: Context) -> None:
    os.fork()


def _change_class(model: nn.Module, context: Context) -> None:
    type(model).forward = lambda self, x: x.new_zeros(len(x), 3)


def _hook_teacher(model: nn.Module, context: Context) -> None:
    context.teacher.register_forward_hook(lambda module, inputs, output: output * 0)


STATE = {
    "working directory": each(lambda: os.chdir("/")),
    "environment": each(os.environ.clear),
    "default dtype": each(lambda: torch.set_default_dtype(torch.float64)),
    "default device": each(lambda: torch.set_default_device("meta")),
    "default tensor type": each(lambda: torch.set_default_tensor_type("torch.DoubleTensor")),
    "gradients off": each(lambda: torch.set_grad_enabled(False)),
    "inference mode": enter(torch.inference_mode),
    "threads": each(lambda: torch.set_num_threads(3)),
    "threads between operators": each(lambda: torch.set_num_interop_threads(3)),
    "deterministic": each(lambda: torch.use_deterministic_algorithms(True)),
    "matmul precision": each(lambda: torch.set_float32_matmul_precision("medium")),
    "autocast": each(lambda: torch.set_autocast_enabled("cpu", True)),
    "seeds": each(lambda: torch.manual_seed(9), lambda: random.seed(9), lambda: np.random.seed(9)),
    "umask": each(lambda: os.umask(0o777)),
    "signal handlers": each(*(lambda n=n: signal.signal(n, signal.SIG_IGN) for n in (15, 17, 10))),
    "a module in the way": each(lambda: sys.modules.update({"onnx": sys, "onnxscript": sys})),
    "imports blocked": each(sys.meta_path.clear, sys.path.clear),
    "streams": each(lambda: setattr(sys, "stdout", None), lambda: setattr(sys, "stderr", None)),
    "closed streams": each(lambda: os.close(1), lambda: os.close(2)),
    "warnings are errors": each(lambda: warnings.simplefilter("error")),
    "logging": each(lambda: logging.disable(logging.CRITICAL), logging.getLogger().handlers.clear),
    "oneDNN off": set_to(lambda: torch.backends.mkldnn, "enabled", False),
    "quantization engine": set_to(lambda: torch.backends.quantized, "engine", "none"),
    "anomaly mode": each(lambda: torch.autograd.set_detect_anomaly(True)),
    "hooks of all modules": each(
        lambda: torch.nn.modules.module.register_module_forward_hook(
            lambda m, i, o: o * 0 if "Linear" in str(m) else o
        )
    ),
    "saved tensors hooks": enter(
        lambda: torch.autograd.graph.saved_tensors_hooks(lambda t: t * 0, lambda t: t)
    ),
    "function mode": enter(lambda: torch.overrides.TorchFunctionMode()),
    "a thread": each(lambda: threading.Thread(target=spin, daemon=True).start()),
    "a child": each(lambda: subprocess.Popen(["sleep", "1000"])),
    "a daemon": each(_daemonize),
    "files": each(lambda: keep([open(os.devnull) for _ in range(500)])),  # noqa: PTH123, SIM115
    "a socket": each(lambda: keep(socket.create_server(("127.0.0.1", 0)))),
    "a patched layer": set_to(
        lambda: nn.Linear, "forward", lambda self, x: x.new_zeros(len(x), self.out_features)
    ),
    "a patched function": set_to(
        lambda: functional, "linear", lambda x, w, b=None: x.new_zeros(len(x), len(w))
    ),
    "a patched operator": set_to(
        lambda: torch.Tensor, "__matmul__", lambda a, b: a.new_zeros(len(a), b.shape[1])
    ),
    "the model's class": _change_class,
    "NumPy": each(lambda: setattr(np, "load", None), lambda: np.seterr(all="raise")),
    "builtins": each(
        lambda: setattr(builtins, "sum", lambda *a: 0), lambda: setattr(builtins, "open", None)
    ),
    "time": each(lambda: setattr(time, "perf_counter", lambda: 0.0)),
    "garbage": each(gc.disable, lambda: keep(bytearray(200 << 20))),
    "recursion": each(lambda: sys.setrecursionlimit(10_000)),
    "tracing": each(lambda: sys.settrace(lambda *a: None), lambda: sys.setprofile(lambda *a: None)),
    "open files allowed": each(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))),
    "priority": each(lambda: os.nice(5)),
    "cores": each(lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})),
    "at exit": each(lambda: atexit.register(spin)),
    "another tune": each(
        lambda: STAGES._table.clear(), lambda: RUNTIMES._table.update(onnxruntime="os:path")
    ),
    "the teacher trains": lambda model, context: context.teacher.train(),
    "the teacher's hooks": _hook_teacher,
    "a fork goes on": _fork_and_go_on,
}
