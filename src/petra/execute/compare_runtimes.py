"""One pipeline across runtimes: its model built once, exported for each, and judged on each as the
file it becomes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from petra.core.errors import PetraError
from petra.core.measurement import Measurement
from petra.core.notes import StepBegan, WorkerNote
from petra.core.pipeline import Pipeline
from petra.core.target import Target
from petra.execute.base import Assignment
from petra.execute.build import prepare
from petra.execute.builder import Builder, ignore
from petra.execute.built import Built
from petra.execute.judge import write_data
from petra.execute.verdict import Artifact, Judge, Timing, only_what_ships
from petra.runtimes.table import runtime_for
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
    assignment: Assignment,
    pipeline: Pipeline,
    runtimes: Sequence[str],
    place: Path,
    *,
    note: Callable[[WorkerNote], None] = ignore,
) -> list[OnRuntime]:
    """Build `pipeline`'s model again, export it to ``place/<runtime>/model.*``, and measure it
    there, in order.

    Speed is paired with the first runtime that runs the model. Names of `runtimes` are as in
    `Target.name`; all else of the payload's target holds for each. A runtime that cannot export,
    load, run or agree with the model is a row with its reason. Raises ConfigError for an unknown
    runtime, and what building the model raises.
    """
    payload, limits = assignment.payload, assignment.limits
    targets = [payload.target.on(name) for name in runtimes]
    for target in targets:
        runtime_for(target)
    if not targets:
        return []
    with TemporaryDirectory(prefix="petra-across-") as scratch:
        data = Path(scratch)
        with Worker(data / "worker.log", threads=assignment.threads) as worker:
            worker.start(replace(payload, data=data), prepare)
            worker.call(
                write_data,
                "val",
                data,
                time_limit_s=limits.time_s,
                memory_limit_mb=limits.memory_mb,
            )
            exports = [(target, place / target.name) for target in targets]
            found = Builder(worker, limits).build_for(pipeline, exports, on_note=note)
            judge = Judge(worker, data, limits, assignment.host)
            rows: list[OnRuntime] = []
            first: Artifact | None = None
            for (target, directory), built in zip(exports, found, strict=True):
                step = StepBegan(len(pipeline) + 1, f"measure on {target.name}")
                row = _row(judge, built, target, directory, first, step, note)
                only_what_ships(directory)
                rows.append(row)
                if not row.failure and first is None:
                    first = Artifact(row.files[0], target)
            return rows


def _row(
    judge: Judge,
    built: Built | PetraError,
    target: Target,
    place: Path,
    first: Artifact | None,
    step: StepBegan,
    note: Callable[[WorkerNote], None],
) -> OnRuntime:
    """What was built for `target` in `place`, judged, or why it could not be."""
    if isinstance(built, PetraError):
        return OnRuntime(target.name, failure=built.message)
    row = OnRuntime(target.name, tuple(place / file.name for file in built.files))
    try:
        verdict = judge.judge(
            built,
            place,
            target,
            step=step.index,
            label=step.name,
            against=first,
            timing=Timing(thorough=True),
            on_note=note,
        )
    except PetraError as error:
        return replace(row, failure=error.message)
    return replace(row, metrics=verdict.metrics, parity=verdict.parity)
