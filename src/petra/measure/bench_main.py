"""The measuring process: loads artifacts in a fresh interpreter, without torch (unless the runtime is torch).

``python -m petra.measure.bench_main`` reads one JSON request from standard input and writes one JSON answer to the file
the request names. That it works at all is the proof that the file stands alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from petra.core.errors import PetraError
from petra.core.measurement import Measurement
from petra.measure import protocol as timing
from petra.runtimes.base import Arrays, Session
from petra.runtimes.table import RUNTIMES

PREDICTION_BATCH = 256
"""Items predicted at once. Parity compares predictions made in the same batches."""


@dataclass(frozen=True)
class Request:
    """What to measure. Paths are strings because the request travels as JSON.

    `data` is a directory of one .npy file per input; `predictions` is where the outputs go ("" to skip them);
    `baseline` is the artifact to be paired with ("" to skip timing), on `baseline_runtime` ("" for the same runtime).
    """

    runtime: str
    artifact: str
    answer: str
    data: str
    baseline: str = ""
    baseline_runtime: str = ""
    predictions: str = ""
    threads: int = 1
    batch: int = 1
    throughput_batch: int = 64
    confirm: bool = False
    host: str = ""


def load_inputs(directory: Path) -> Arrays:
    """The inputs of a split, memory-mapped, by name."""
    return {p.stem: np.load(p, mmap_mode="r", allow_pickle=False) for p in sorted(directory.glob("*.npy"))}


def take(inputs: Mapping[str, np.ndarray], start: int, count: int) -> Arrays:
    """`count` items from `start`, wrapping around at the end so that any batch size can be timed.

    Copies, because some runtimes copy what is read-only, as memory-mapped arrays are, in every call.
    """
    n = len(next(iter(inputs.values())))
    if start + count <= n:
        return {k: np.array(v[start : start + count], order="C") for k, v in inputs.items()}
    index = np.arange(start, start + count) % n
    return {k: np.ascontiguousarray(v[index]) for k, v in inputs.items()}


def pick(outputs: Arrays) -> np.ndarray:
    """The output a task judges: `logits` if there is one, else the first."""
    return outputs["logits"] if "logits" in outputs else next(iter(outputs.values()))


def predict(session: Session, inputs: Mapping[str, np.ndarray], batch: int = PREDICTION_BATCH) -> np.ndarray:
    """All predictions of a split, (n, ...)."""
    n = len(next(iter(inputs.values())))
    parts = [pick(session.run(take(inputs, i, min(batch, n - i)))) for i in range(0, n, batch)]
    return np.concatenate(parts)


def peak_memory_mb() -> float:
    """High-water mark of this process's resident memory."""
    import resource

    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def measure(request: Request) -> dict[str, Measurement]:
    """All about one artifact: memory first, while the process holds nothing else, then predictions, then speed."""
    runtime = RUNTIMES.get(request.runtime)()
    inputs = load_inputs(Path(request.data))
    warm = take(inputs, 0, request.batch)
    before = peak_memory_mb()
    candidate = runtime.load(Path(request.artifact), threads=request.threads)
    candidate.run(warm)
    found = {"memory_mb": Measurement(max(0.0, peak_memory_mb() - before), 0.0, 1, "MB", request.host)}
    if request.predictions:
        np.save(request.predictions, predict(candidate, inputs), allow_pickle=False)
    if request.baseline:
        other = RUNTIMES.get(request.baseline_runtime or request.runtime)()
        baseline = other.load(Path(request.baseline), threads=request.threads)
        how = timing.CONFIRM if request.confirm else timing.SEARCH
        paired = timing.time_paired(lambda: baseline.run(warm), lambda: candidate.run(warm), how)
        found |= timing.latency_measurements(paired, host=request.host)
        many = take(inputs, 0, request.throughput_batch)
        paired = timing.time_paired(lambda: baseline.run(many), lambda: candidate.run(many), how)
        found |= timing.throughput_measurements(paired, request.throughput_batch, host=request.host)
    return found


def main() -> None:
    """Read the request, measure, write the answer: {"metrics": ...}, or what `reply` makes of an error."""
    request = Request(**json.load(sys.stdin))
    reply(request.answer, lambda: {"metrics": {k: asdict(v) for k, v in measure(request).items()}})


def reply(path: str, work: Callable[[], dict[str, object]]) -> None:
    """Write what `work` returns, or {"error": ..., "hint": ..., "kind": ...}, as JSON to `path`, all or nothing."""
    try:
        answer = work()
    except PetraError as error:
        answer = {"error": error.message, "hint": error.hint, "kind": type(error).__name__}
    answer["torch_loaded"] = "torch" in sys.modules
    temporary = Path(path).with_suffix(".tmp")
    temporary.write_text(json.dumps(answer))
    temporary.replace(path)


if __name__ == "__main__":
    main()
