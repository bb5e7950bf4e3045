"""petra bench: measure model files, or a study's model on several runtimes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from petra.cli.artifact import Inputs, TimeLimit, seconds
from petra.cli.bench_files import BENCH_LIMIT_S, How, bench_files
from petra.cli.bench_tables import cells, conditions, table_of
from petra.cli.completion import pick_names, runtime_names
from petra.cli.output import JsonFlag, note, say, say_json
from petra.cli.search import Trust
from petra.core.errors import ConfigError
from petra.core.notes import StepBegan, WorkerNote

if TYPE_CHECKING:
    from petra.execute.compare_runtimes import OnRuntime


def bench(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...|DIR", help="Model files, or a study's directory."),
    ],
    against: Annotated[
        Path | None, typer.Option(help="The file they are compared with, timed in turns.")
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            "--runtime",
            "--runtimes",
            help="Runtimes, repeated or separated by commas.",
            autocompletion=runtime_names,
        ),
    ] = None,
    pick: Annotated[
        str,
        typer.Option(
            help="Which model of a study: as in `petra export`.", autocompletion=pick_names
        ),
    ] = "knee",
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads. Default: 1, or the study's.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Items per call for latency. Default: 1.")
    ] = None,
    throughput_batch: Annotated[
        int | None, typer.Option(min=1, help="The same for throughput. Default: 64.")
    ] = None,
    inputs: Inputs = None,
    time_limit: TimeLimit = None,
    trust: Trust = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure latency, throughput and memory of model files, or of a study's model on several
    runtimes.

    With --against, both files are timed in alternating blocks in one process: the ratio is what to
    trust on a machine that is not idle. The reference stands in the first row, timed against
    itself. With several runtimes, ratios are over the first one.

    Files run on random inputs of the shapes they declare, or on those of an .npz file; one whose
    batch is fixed runs at that. For a study, the picked model is built again, exported for each
    runtime, and judged on the validation split too.

    For example:

    - `petra bench model.onnx`
    - `petra bench small.onnx tiny.onnx --against model.onnx --threads 2`
    - `petra bench model.onnx --runtime onnxruntime --runtime openvino`
    - `petra bench theirs.onnx --inputs a-few-items.npz`
    - `petra bench petra-demo --pick knee --runtimes onnxruntime,openvino,torch,torch.compile`
    """
    from petra.core.target import Target
    from petra.runtimes.table import runtime_for

    names = list(
        dict.fromkeys(part for given in runtime or () for part in given.split(",") if part)
    )
    for name in names:
        runtime_for(Target(name))
    sizes = {"threads": threads, "batch": batch, "throughput_batch": throughput_batch}
    given = {name: size for name, size in sizes.items() if size is not None}
    if any(file.is_dir() for file in files):
        if len(files) > 1 or against is not None:
            raise ConfigError(
                "bench: a study's directory is measured alone", hint="give one directory, or files"
            )
        if inputs is not None or time_limit is not None:
            raise ConfigError(
                "bench: a study has its own data and limits",
                hint="--inputs and --time-limit are for files",
            )
        _bench_study(files[0], names, pick, given, trust=trust, as_json=as_json)
        return
    how = How(against, names, given, inputs, seconds(time_limit, BENCH_LIMIT_S))
    bench_files(files, how, as_json=as_json)


def _bench_study(
    directory: Path,
    names: Sequence[str],
    pick: str,
    given: Mapping[str, Any],
    *,
    trust: bool,
    as_json: bool,
) -> None:
    from petra.report.record import StudyRecord
    from petra.report.study_front import StudyFront

    record = StudyRecord.load(directory)
    member = StudyFront.of_record(record).pick(pick)

    from petra.api import live_study

    target = replace(record.config.target, **given)
    runtimes = names or _available(target.name)
    note(f"building {member} again, for {', '.join(runtimes)}")
    rows = live_study(directory, trust=trust).compare_runtimes(
        runtimes, pick=member.number, target=target, note=_say_stage
    )
    if as_json:
        say_json(
            {
                "trial": member.number,
                "threads": target.threads,
                "batch": target.batch,
                "runtimes": {row.runtime: _plain(row) for row in rows},
            }
        )
        return
    table = table_of(["runtime"], ratio=True, quality=record.metric)
    for row in rows:
        if not row.failure:
            table.add_row(row.runtime, *cells(row.metrics))
    say(table)
    for row in rows:
        if row.failure:
            say(f"{row.runtime}: {row.failure}")
    say(f"{member}")
    measured = conditions(target.threads, target.batch, target.throughput_batch)
    say(f"{measured}; {record.metric} on the validation split")


def _available(first: str) -> list[str]:
    """The runtimes this machine has, the study's first."""
    from petra.runtimes.table import deployable

    others = (name for name, runtime in deployable().items() if not runtime.lacks())
    return list(dict.fromkeys((first, *others)))


def _say_stage(event: WorkerNote) -> None:
    if isinstance(event, StepBegan):
        note(f"  {event.name}")


def _plain(row: OnRuntime) -> dict[str, Any]:
    if row.failure:
        return {"failure": row.failure}
    metrics = {name: m.as_dict() for name, m in row.metrics.items()}
    return {
        "files": [str(file) for file in row.files],
        "metrics": metrics,
        "parity": dict(row.parity),
    }
