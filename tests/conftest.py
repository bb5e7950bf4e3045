"""Shared by all tests: small real problems, and where the larger real data is."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

# As many processes test as there are cores: more threads would wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
import torch

from petra.tasks.base import Task
from petra.training.loop import TrainConfig, fit
from petra.workloads.digits import DigitsNet, digits_task

# What petra remembers of its user goes where tests leave nothing behind, in all processes they
# start.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="petra-tests-")

# One core for each process and what it starts, or studies would have workers for all of them.
ALL_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
if ALL_CORES and (process := os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")):
    os.sched_setaffinity(0, {ALL_CORES[int(process) % len(ALL_CORES)]})


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Where another process keeps a core busy, two threads spend their time waiting for each
    other.
    """
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """A script's background processes ignore Ctrl-C, and so would those that tests start and
    interrupt.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The directory with cifar10/ and weights/, or a skip with the reason."""
    root = Path(os.environ.get("PETRA_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no data directory at {root} (set PETRA_DATA)")
    return root.resolve()


@pytest.fixture(scope="session")
def digits_problem() -> tuple[DigitsNet, Task]:
    """A small digits network trained for a few epochs to about 95%: do not modify it, copy it."""
    task = digits_task()
    torch.manual_seed(0)
    model = DigitsNet(width=8)
    fit(model, task, TrainConfig(epochs=4, lr=0.1, batch_size=64), seed=0)
    return model, task
