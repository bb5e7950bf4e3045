"""One pipeline across runtimes: its model built once, exported for each, and judged on each as the
file it becomes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from petra.core.errors import PetraError
from petra.core.measurement import Measurement
from petra.core.pipeline import Pipeline
from petra.execute.build import BuildPayload, Note, compressed, prepare, save_reference
from petra.execute.evaluate import Limits
from petra.execute.judge import Judged, judge, targets_file, write_data
from petra.measure.bench_main import Request
from petra.measure.client import run_bench
from petra.methods.table import STAGES
from petra.runtimes.table import RUNTIMES
from petra.space.effects import FLOAT_WEIGHTS
from petra.workers.isolate import Worker


@dataclass(frozen=True)
class OnRuntime:
    """A pipeline's model on one runtime: the files that would ship, and what was measured of them.

    `metrics` has speed (ratios over the first runtime of the comparison), memory, size, and quality
    on the validation split. `failure` says why there are none.
    """

    runtime: str
    files: tuple[Path, ...] = ()
    metrics: Mapping[str, Measurement] = field(default_factory=dict)
    parity: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""


def compare_runtimes(
    payload: BuildPayload,
    pipeline: Pipeline,
    runtimes: Sequence[str],
    place: Path,
    *,
    limits: Limits,
    threads: int,
    host: str,
    note: Note = lambda note: None,
) -> list[OnRuntime]:
    """Build `pipeline`'s model again, export it to ``place/<runtime>/model.*``, and measure it
    there, in order.

    Speed is paired with the first runtime that runs the model. `threads` is for building; measuring
    takes those of the payload's target. A runtime that cannot export, load, run or agree with the
    model is a row with its reason. Raises ConfigError for an unknown runtime, and what building the
    model raises.
    """
    for name in runtimes:
        RUNTIMES.get(name)
    with TemporaryDirectory(prefix="petra-across-") as scratch:
        work = Path(scratch)
        with Worker(work / "worker.log", threads=threads) as worker:
            worker.start(payload, prepare)

            def run(function: Callable[..., Any], *args: object) -> Any:
                limit_s, limit_mb = limits.time_s, limits.memory_mb
                return worker.call(
                    function, *args, time_limit_s=limit_s, memory_limit_mb=limit_mb, on_note=note
                )

            run(write_data, "val", work)
            exported = run(export_everywhere, pipeline, tuple(runtimes), place, work)
            rows: list[OnRuntime] = []
            for name, files in exported.items():
                note(("stage", len(pipeline) + 1, f"measure on {name}"))
                if isinstance(files, PetraError):
                    rows.append(OnRuntime(name, failure=files.message))
                    continue
                row = OnRuntime(name, tuple(Path(file) for file in files))
                first = next((r for r in rows if not r.failure), row)
                try:
                    metrics, parity = _judge(payload, pipeline, row, first, work, host, limits, run)
                    rows.append(replace(row, metrics=metrics, parity=parity))
                except PetraError as error:
                    rows.append(replace(row, failure=error.message))
            return rows


def export_everywhere(
    payload: BuildPayload,
    note: Note,
    pipeline: Pipeline,
    runtimes: Sequence[str],
    place: Path,
    work: Path,
) -> dict[str, tuple[str, ...] | PetraError]:
    """In the worker: files by runtime, or the error for which there are none.

    Reads validation inputs from ``work/val`` and leaves the model's own predictions in
    ``work/reference.npz``.
    """
    model, _ = compressed(payload, note, pipeline)
    example = payload.task.example(2)
    save_reference(model, work / "val", example, work / "reference.npz")
    found: dict[str, tuple[str, ...] | PetraError] = {}
    for name in runtimes:
        note(("stage", len(pipeline), f"export for {name}"))
        runtime = RUNTIMES.get(name)()
        directory = place / name
        directory.mkdir(parents=True, exist_ok=True)
        try:
            files = runtime.export(
                model, example, directory / f"model{runtime.suffix}", payload.interface
            )
            found[name] = tuple(str(file) for file in files)
        except PetraError as error:
            found[name] = error
    return found


def _judge(
    payload: BuildPayload,
    pipeline: Pipeline,
    row: OnRuntime,
    first: OnRuntime,
    work: Path,
    host: str,
    limits: Limits,
    run: Callable[..., Any],
) -> tuple[dict[str, Measurement], Mapping[str, float]]:
    """Speed against `first`, quality on the validation split, agreement with the PyTorch model."""
    request = Request(
        runtime=row.runtime,
        artifact=str(row.files[0]),
        data=str(work / "val"),
        baseline=str(first.files[0]),
        baseline_runtime=first.runtime,
        predictions=str(work / "predictions.npz"),
        threads=payload.target.threads,
        batch=payload.target.batch,
        throughput_batch=payload.target.throughput_batch,
        confirm=True,
        host=host,
    )
    metrics = run_bench(request, time_limit_s=limits.time_s, memory_limit_mb=limits.memory_mb)
    quantized = any(FLOAT_WEIGHTS in STAGES.get(stage.kind).effects.removes for stage in pipeline)
    files = (work / "predictions.npz", targets_file(work, "val"), work / "reference.npz")
    judged: Judged = run(judge, *files, quantized, len(pipeline) + 1)
    metrics |= judged.on(host)
    size = sum(file.stat().st_size for file in row.files)
    metrics["size_bytes"] = Measurement(float(size), 0.0, 1, "B", host)
    return metrics, judged.parity
