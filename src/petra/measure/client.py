"""Measuring in a process of its own: write the data it needs, start it, hear what it found.

Only writing splits loads torch.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import psutil

from petra.core.errors import PetraError
from petra.core.measurement import Measurement
from petra.measure.bench_main import Request, measure
from petra.measure.launches import LAUNCHES, PRIOR, together
from petra.measure.stored import write_dense, write_interface, write_ragged
from petra.runtimes.base import Runtime, error_line
from petra.runtimes.table import RUNTIMES
from petra.workers.failures import WorkerDied, WorkerError, WorkerFailure
from petra.workers.isolate import Worker

if TYPE_CHECKING:
    from petra.core.interface import Interface
    from petra.tasks.data import Split

T = TypeVar("T")

TIME_LIMIT_S = 600.0
_NOT_SAID = ("Fatal Python error", "Extension modules:", "Thread 0x", "Current thread")
_SHARE_OF_MEMORY = 0.8
_LONGEST = 2_000  # characters of a message


class BenchDied(PetraError):
    """The measuring process crashed on an artifact, or failed in a way that nobody expected."""


def write_split(split: Split, directory: Path, interface: Interface | None = None) -> np.ndarray:
    """Write a split's inputs, in its own order, as `petra.measure.stored` has them, and the
    interface that they are for; return the targets (n, ...). Existing files are replaced.
    """
    from petra.tasks.inputs import named
    from petra.tasks.ragged import RaggedItems

    directory.mkdir(parents=True, exist_ok=True)
    if interface is not None:
        write_interface(interface, directory)
    if isinstance(split.source, RaggedItems):
        write_ragged(split.source.ragged.head(len(split)), directory)
        return np.concatenate([target.numpy() for _, target in split.batches(256)])
    columns: dict[str, list[np.ndarray]] = {}
    targets = []
    for inputs, target in split.batches(256):
        for name, tensor in named(inputs).items():
            columns.setdefault(name, []).append(tensor.detach().cpu().numpy())
        targets.append(target.detach().cpu().numpy())
    write_dense({name: np.concatenate(parts) for name, parts in columns.items()}, directory)
    return np.concatenate(targets)


def spare_memory_mb() -> float:
    """What a measurement may use where nobody says: most of what is free on this machine now."""
    return _SHARE_OF_MEMORY * float(psutil.virtual_memory().available) / 2**20


def run_bench(
    request: Request, *, time_limit_s: float = TIME_LIMIT_S, memory_limit_mb: float | None = None
) -> dict[str, Measurement]:
    """Measure in a fresh process. Limits and errors as in `alone`."""
    found, _ = alone(
        measure,
        request,
        artifact=request.artifact,
        runtimes=request.runtimes,
        threads=request.target.threads,
        time_limit_s=time_limit_s,
        memory_limit_mb=memory_limit_mb,
    )
    return {name: Measurement(**value) for name, value in found.items()}


def run_benches(request: Request) -> dict[str, Measurement]:
    """The same in `LAUNCHES` processes, with errors that cover what varies between them."""
    again = replace(request, predictions="")
    launches = [run_bench(request), *(run_bench(again) for _ in range(LAUNCHES - 1))]
    return together(launches, PRIOR)


def alone(
    function: Callable[..., T],
    *args: Any,
    artifact: str,
    runtimes: tuple[str, ...],
    threads: int,
    time_limit_s: float = TIME_LIMIT_S,
    memory_limit_mb: float | None = None,
) -> tuple[T, bool]:
    """``function(*args)`` in a fresh process for `artifact`, and whether that process has loaded
    torch.

    The process imports what is installed, nothing from the working directory or from beside the
    artifact; it dies with this one. Of `runtimes`, those registered at run time are made known
    there. Memory is limited to `spare_memory_mb` by default.

    A PetraError of the function is raised here. Raises TimeLimitExceeded or MemoryLimitExceeded at
    the limits, and BenchDied when the process crashed. Cost: half a second for ONNX Runtime.
    """
    added = {name: item for name, item in RUNTIMES.added().items() if name in runtimes}
    memory_limit_mb = spare_memory_mb() if memory_limit_mb is None else memory_limit_mb
    with tempfile.TemporaryDirectory(prefix="petra-measure-") as scratch:
        log = Path(scratch) / "log"
        with Worker(log, threads=threads, alone=True) as worker:
            try:
                # The program that registered a runtime knows where its module is.
                worker.start(
                    [str(Path(entry).absolute()) for entry in sys.path if added], _import_also_from
                )
                return worker.call(
                    _work,
                    function,
                    args,
                    added,
                    time_limit_s=time_limit_s,
                    memory_limit_mb=memory_limit_mb,
                )
            except WorkerError as error:
                raise _about(artifact, error, log) from None


def _import_also_from(places: list[str]) -> None:
    sys.path += [place for place in places if place not in sys.path]


def _work(
    payload: list[str],
    note: object,
    function: Callable[..., T],
    args: tuple[Any, ...],
    runtimes: Mapping[str, type[Runtime]],
) -> tuple[T, bool]:
    for name, runtime in runtimes.items():
        if name not in RUNTIMES.names():
            RUNTIMES.register(name, runtime)
    try:
        return function(*args), "torch" in sys.modules
    except PetraError as error:
        error.message = _bounded(error.message)
        raise


def _bounded(text: str) -> str:
    """The beginning and the end of a text that names of a file made long."""
    return (
        text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
    )


def _about(artifact: str, error: WorkerError, log: Path) -> PetraError:
    """What happened to the process, in words about the artifact."""
    if isinstance(error, WorkerFailure):
        return BenchDied(f"{artifact}: {error_line(error)}")
    if isinstance(error, WorkerDied):
        how = (
            f"was ended by {error.signal}"
            if error.signal
            else f"exited with code {error.exit_code}"
        )
        said = _last_words(log)
        return BenchDied(
            f"{artifact}: the process that ran it {how}" + (f": {said}" if said else ""),
            hint="it ran out of memory, or was killed by hand" if error.signal == "SIGKILL" else "",
        )
    error.message = f"{artifact}: {error.message}"
    return error


def _last_words(log: Path) -> str:
    """The last line of a log that tells something, '' when there is none.

    Traces of the stack do not.
    """
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    said = [
        line.strip() for line in lines if line.strip() and not line.startswith((" ", *_NOT_SAID))
    ]
    return said[-1][:300] if said else ""
