"""petra bench: measure model files, or a study's model on several runtimes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from petra.cli.artifact import (
    VERIFY_LIMIT_S,
    Inputs,
    TimeLimit,
    in_time,
    inspect_file,
    interface_in,
    runtime_of,
    seconds,
    shape_text,
)
from petra.cli.output import JsonFlag, note, say, say_json
from petra.core.errors import ConfigError

if TYPE_CHECKING:
    from petra.core.measurement import Measurement
    from petra.execute.across import OnRuntime
    from petra.measure.bench_main import Request
    from petra.measure.interface import Interface


def bench(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...|DIR", help="Model files, or a study's directory.")],
    against: Annotated[Path | None, typer.Option(help="The file they are compared with, timed in turns.")] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option("--runtime", "--runtimes", help="Runtimes, repeated or separated by commas."),
    ] = None,
    pick: Annotated[str, typer.Option(help="Which model of a study: as in `petra export`.")] = "knee",
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Threads. Default: 1, or the study's.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Items per call for latency. Default: 1.")] = None,
    throughput_batch: Annotated[int | None, typer.Option(min=1, help="The same for throughput. Default: 64.")] = None,
    inputs: Inputs = None,
    time_limit: TimeLimit = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure latency, throughput and memory of model files, or of a study's model on several runtimes.

    With --against, both files are timed in alternating blocks in one process: the ratio is what to trust on a machine
    that is not idle. With several runtimes, ratios are over the first one.

    Files run on random inputs of the shapes they declare, or on those of an .npz file; one whose batch is fixed runs
    at that. For a study, the picked model is built again, exported for
    each runtime, and judged on the validation split too.

    For example:

    - `petra bench model.onnx`
    - `petra bench small.onnx tiny.onnx --against model.onnx --threads 2`
    - `petra bench model.onnx --runtime onnxruntime --runtime openvino`
    - `petra bench theirs.onnx --inputs a-few-items.npz`
    - `petra bench petra-demo --pick knee --runtimes onnxruntime,openvino,torch,torch.compile`
    """
    from petra.runtimes.table import RUNTIMES

    names = list(dict.fromkeys(part for given in runtime or () for part in given.split(",") if part))
    for name in names:
        RUNTIMES.get(name)
    sizes = {"threads": threads, "batch": batch, "throughput_batch": throughput_batch}
    given = {name: size for name, size in sizes.items() if size is not None}
    if any(file.is_dir() for file in files):
        if len(files) > 1 or against is not None:
            raise ConfigError("bench: a study's directory is measured alone", hint="give one directory, or files")
        if inputs is not None or time_limit is not None:
            raise ConfigError(
                "bench: a study has its own data and limits", hint="--inputs and --time-limit are for files"
            )
        _bench_study(files[0], names, pick, given, as_json=as_json)
        return
    how = _How(against, names, given, inputs, seconds(time_limit, BENCH_LIMIT_S))
    _bench_files(files, how, as_json=as_json)


# ---- files -----------------------------------------------------------------------------------------------------------


BENCH_LIMIT_S = 600.0
"""Time for all measurements of a file. Of a model that takes seconds a call, there are hundreds of calls."""


@dataclass(frozen=True)
class _How:
    """What files are measured with: what the command line says. `names`: runtimes, () for the file's own."""

    against: Path | None
    names: Sequence[str]
    given: Mapping[str, Any]
    inputs: Path | None
    time_limit_s: float


@dataclass(frozen=True)
class _Row:
    file: Path
    request: Request
    fixed: bool
    metrics: Mapping[str, Measurement]


def _bench_files(files: Sequence[Path], how: _How, *, as_json: bool) -> None:
    rows = [_measure(file, name, how) for file in files for name in how.names or (None,)]
    several = len(how.names) > 1
    if as_json:
        say_json(_as_plain(rows, how, several=several))
        return
    table = _table(["file", "runtime"] if several else ["file"], ratio=several or how.against is not None)
    for row in rows:
        table.add_row(str(row.file), *([row.request.runtime] if several else []), *_cells(row.metrics))
    say(table)
    usual = next((row.request for row in rows if not row.fixed), rows[0].request)
    inputs = "random inputs" if how.inputs is None else f"inputs from {how.inputs}"
    say(f"{_conditions(usual.threads, usual.batch, usual.throughput_batch)}; {inputs}")
    for file, batch in {row.file: row.request.batch for row in rows if row.fixed}.items():
        say(f"note: {file} was measured at batch {batch}: its sizes leave no other")


def _as_plain(rows: Sequence[_Row], how: _How, *, several: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in rows:
        metrics = {name: m.as_dict() for name, m in row.metrics.items()}
        if several:
            found.setdefault(str(row.file), {})[row.request.runtime] = metrics
        else:
            found[str(row.file)] = metrics
    usual = _request("", "", how)
    return {
        "against": str(how.against) if how.against else None,
        "threads": usual.threads,
        "batch": usual.batch,
        "fixed_batch": {str(row.file): row.request.batch for row in rows if row.fixed},
        "files": found,
    }


def _request(runtime: str, artifact: str, how: _How) -> Request:
    from petra.measure.bench_main import Request
    from petra.measure.host import describe_host

    return Request(runtime, artifact, confirm=True, host=str(describe_host()["id"]), **how.given)


def _measure(file: Path, name: str | None, how: _How) -> _Row:
    """All measurements of one file on one runtime; the ratios mean something only when there is something else."""
    from petra.core.measurement import Measurement
    from petra.measure.bench_main import measure_file
    from petra.measure.client import alone
    from petra.runtimes.base import files_of

    interface = _interface_of(file, name, how)
    other = how.against or file
    if how.against is not None and not _same(interface, wanted := _interface_of(how.against, name, how)):
        raise ConfigError(
            f"{file} and {how.against} take different inputs: {_shown(interface)} and {_shown(wanted)}",
            hint="only models of one interface can be compared",
        )
    ready = replace(
        _at_its_batch(_request(runtime_of(file, name), str(file), how), interface, how),
        baseline=str(other),
        baseline_runtime=runtime_of(other, how.names[0] if how.names else None),
    )
    with in_time():
        plain, _ = alone(
            measure_file,
            ready,
            interface,
            str(how.inputs or ""),
            artifact=ready.artifact,
            runtimes=(ready.runtime, ready.baseline_runtime),
            threads=ready.threads,
            time_limit_s=how.time_limit_s,
        )
    found = {key: Measurement(**m) for key, m in plain.items()}
    if how.against is None and len(how.names) < 2:
        found = {key: m for key, m in found.items() if not key.endswith("_ratio")}
    size = sum(f.stat().st_size for f in files_of(file))
    return _Row(file, ready, not interface.axes, found | {"size_bytes": Measurement(float(size), unit="B")})


def _at_its_batch(request: Request, interface: Interface, how: _How) -> Request:
    """The request with the batch that a file fixes, in every call."""
    if interface.axes:
        return request
    only = interface.fixed or 1
    for option, size in how.given.items():
        if option.endswith("batch") and size != only:
            raise ConfigError(
                f"{request.artifact}: takes batches of {only} and no others, not {size}",
                hint=f"leave --{option.replace('_', '-')} out",
            )
    return replace(request, batch=only, throughput_batch=only)


def _interface_of(file: Path, name: str | None, how: _How) -> Interface:
    """What a file declares, asked of the runtime its suffix stands for: some others take a minute to say."""
    from petra.runtimes.table import runtimes_by_suffix

    runtime = runtimes_by_suffix().get(file.suffix, name)
    limit = min(how.time_limit_s, VERIFY_LIMIT_S)
    return interface_in(inspect_file(file, runtime, inputs=how.inputs, time_limit_s=limit))


def _same(one: Interface, other: Interface) -> bool:
    """Whether two files can be fed alike, whatever they call their sizes."""
    return [replace(s, names=()) for s in one.inputs] == [replace(s, names=()) for s in other.inputs]


def _shown(interface: Interface) -> str:
    return ", ".join(f"{s.name} {s.dtype} {shape_text(s.shape, s.names)}" for s in interface.inputs)


# ---- a study ---------------------------------------------------------------------------------------------------------


def _bench_study(directory: Path, names: Sequence[str], pick: str, given: Mapping[str, Any], *, as_json: bool) -> None:
    from petra.cli.search import find_study_modules
    from petra.report.front import Front
    from petra.report.record import StudyRecord

    record = StudyRecord.load(directory)
    member = Front.of_record(record).pick(pick)
    find_study_modules(directory)

    from petra.api import live_study
    from petra.runtimes.base import Target

    target = replace(Target(**record.config.target.model_dump()), **given)
    runtimes = names or _available(target.runtime)
    note(f"building {member} again, for {', '.join(runtimes)}")
    rows = live_study(directory).compare_runtimes(runtimes, pick=member.number, target=target, note=_say_stage)
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
    table = _table(["runtime"], ratio=True, quality=record.metric)
    for row in rows:
        if not row.failure:
            table.add_row(row.runtime, *_cells(row.metrics))
    say(table)
    for row in rows:
        if row.failure:
            say(f"{row.runtime}: {row.failure}")
    say(f"{member}")
    conditions = _conditions(target.threads, target.batch, target.throughput_batch)
    say(f"{conditions}; {record.metric} on the validation split")


def _available(first: str) -> list[str]:
    """The runtimes this machine has, the study's first."""
    from petra.runtimes.table import RUNTIMES

    return [first, *(name for name in RUNTIMES.names() if name != first and not RUNTIMES.get(name)().lacks())]


def _say_stage(event: object) -> None:
    if isinstance(event, tuple) and event and event[0] == "stage":
        note(f"  {event[2]}")


def _plain(row: OnRuntime) -> dict[str, Any]:
    if row.failure:
        return {"failure": row.failure}
    metrics = {name: m.as_dict() for name, m in row.metrics.items()}
    return {"files": [str(file) for file in row.files], "metrics": metrics, "parity": dict(row.parity)}


# ---- tables ----------------------------------------------------------------------------------------------------------


def _conditions(threads: int, batch: int, throughput_batch: int) -> str:
    return f"{threads} thread(s); latency at batch {batch}, throughput at batch {throughput_batch}"


def _table(first: Sequence[str], *, ratio: bool, quality: str = "") -> Table:
    """Titles for `_cells`; `quality` is the metric's name where there is one."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in first:
        table.add_column(title, overflow="fold")
    ratios = ["latency ratio"] if ratio else []
    for title in (*([quality] if quality else []), "latency", "95th pct.", *ratios, "throughput", "memory", "size"):
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _cells(metrics: Mapping[str, Measurement]) -> list[str]:
    from petra.report.units import interval, value

    ratio = metrics.get("latency_ratio")
    within = f" ({interval(ratio)})" if ratio and ratio.stderr else ""
    return [
        *([value("quality", metrics["quality"].mean)] if "quality" in metrics else []),
        *(value(m, metrics[m].mean) for m in ("latency_ms", "latency_p95_ms")),
        *([f"{ratio.mean:.2f}x{within}"] if ratio else []),
        *(value(m, metrics[m].mean) for m in ("throughput", "memory_mb", "size_bytes")),
    ]
