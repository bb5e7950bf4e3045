"""Measuring artifacts, in a fresh process without torch (unless the runtime is torch).

That it works at all is the proof that the file stands alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from petra.core.measurement import Measurement
from petra.core.target import Target
from petra.measure import protocol as timing
from petra.measure.feed import make_feed
from petra.measure.interface import Interface
from petra.runtimes.base import Arrays, Session
from petra.runtimes.table import runtime_for
from petra.workers.memory import peak_mb

PREDICTION_BATCH = 256
"""Items predicted at once. Parity compares predictions made in the same batches."""


@dataclass(frozen=True)
class Request:
    """What to measure.

    `data` is a directory of one .npy file per input; `predictions` is where the outputs go ("" to
    skip them); `baseline` is the artifact to be paired with ("" to skip timing), on
    `baseline_target` (None for the same).
    """

    target: Target
    artifact: str
    data: str = ""
    baseline: str = ""
    baseline_target: Target | None = None
    predictions: str = ""
    confirm: bool = False
    host: str = ""

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Names of the runtimes that it needs."""
        return self.target.runtime, (self.baseline_target or self.target).runtime


def load_inputs(directory: Path) -> Arrays:
    """The inputs of a split, memory-mapped, by name."""
    return {
        p.stem: np.load(p, mmap_mode="r", allow_pickle=False)
        for p in sorted(directory.glob("*.npy"))
    }


def take(inputs: Mapping[str, np.ndarray], start: int, count: int) -> Arrays:
    """`count` items from `start`, wrapping around at the end so that any batch size can be timed.

    Copies, because some runtimes copy what is read-only, as memory-mapped arrays are, in every
    call.
    """
    n = len(next(iter(inputs.values())))
    if start + count <= n:
        return {k: np.array(v[start : start + count], order="C") for k, v in inputs.items()}
    index = np.arange(start, start + count) % n
    return {k: np.ascontiguousarray(v[index]) for k, v in inputs.items()}


def pick(outputs: Arrays) -> np.ndarray:
    """The output a task judges: `logits` if there is one, else the first."""
    return outputs["logits"] if "logits" in outputs else next(iter(outputs.values()))


def predict(
    session: Session, inputs: Mapping[str, np.ndarray], batch: int = PREDICTION_BATCH
) -> np.ndarray:
    """All predictions of a split, (n, ...)."""
    n = len(next(iter(inputs.values())))
    parts = [pick(session.run(take(inputs, i, min(batch, n - i)))) for i in range(0, n, batch)]
    return np.concatenate(parts)


def measure(request: Request) -> dict[str, dict[str, Any]]:
    """All about one artifact, on the inputs in `request.data`: its measurements as plain data."""
    inputs = load_inputs(Path(request.data))
    return _measure(request, lambda count: take(inputs, 0, count), inputs)


def measure_file(request: Request, interface: Interface, given: str) -> dict[str, dict[str, Any]]:
    """The same for a file that comes alone: on random inputs, or on those in the .npz file
    `given`.
    """
    target = request.target
    items = max(target.batch, target.throughput_batch) if interface.axes else 1
    feed = make_feed(interface, items, given=given)
    return _measure(request, lambda count: feed.take(0, count), {})


def _measure(
    request: Request, calls: Callable[[int], Arrays], inputs: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Memory first, while the process holds nothing else, then predictions, then speed."""
    target = request.target
    runtime = runtime_for(target)
    warm = calls(target.batch)
    before = peak_mb()
    candidate = runtime.load(Path(request.artifact))
    candidate.run(warm)
    found = {"memory_mb": Measurement(max(0.0, peak_mb() - before), 0.0, 1, "MB", request.host)}
    if request.predictions:
        np.save(request.predictions, predict(candidate, inputs), allow_pickle=False)
    if request.baseline:
        baseline = runtime_for(request.baseline_target or target).load(Path(request.baseline))
        how = timing.CONFIRM if request.confirm else timing.SEARCH
        paired = timing.time_paired(lambda: baseline.run(warm), lambda: candidate.run(warm), how)
        found |= timing.latency_measurements(paired, host=request.host)
        many = calls(target.throughput_batch)
        paired = timing.time_paired(lambda: baseline.run(many), lambda: candidate.run(many), how)
        found |= timing.throughput_measurements(paired, target.throughput_batch, host=request.host)
    return {name: asdict(measurement) for name, measurement in found.items()}
