"""petra bench: measure model files, or a study's model on several runtimes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from petra.cli.artifact import inspect_file, runtime_of, shape_text
from petra.cli.output import JsonFlag, note, say, say_json
from petra.cli.search import Trust
from petra.core.errors import ConfigError

if TYPE_CHECKING:
    from petra.core.measurement import Measurement
    from petra.execute.across import OnRuntime
    from petra.measure.bench_main import Request


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
    trust: Trust = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure latency, throughput and memory of model files, or of a study's model on several runtimes.

    With --against, both files are timed in alternating blocks in one process: the ratio is what to trust on a machine
    that is not idle. With several runtimes, ratios are over the first one.

    Files run on random inputs of the shapes they declare. For a study, the picked model is built again, exported for
    each runtime, and judged on the validation split too.

    For example:

    - `petra bench model.onnx`
    - `petra bench small.onnx tiny.onnx --against model.onnx --threads 2`
    - `petra bench model.onnx --runtime onnxruntime --runtime openvino`
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
        _bench_study(files[0], names, pick, given, trust=trust, as_json=as_json)
        return
    _bench_files(files, against, names, given, as_json=as_json)


# ---- files -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    file: Path
    runtime: str
    metrics: Mapping[str, Measurement]


def _bench_files(
    files: Sequence[Path], against: Path | None, names: Sequence[str], given: Mapping[str, Any], *, as_json: bool
) -> None:
    from petra.measure.bench_main import Request
    from petra.measure.host import describe_host

    request = Request(
        runtime="", artifact="", answer="", data="", confirm=True, host=str(describe_host()["id"]), **given
    )
    rows = [_measure(file, name, against, names, request) for file in files for name in names or (None,)]
    several = len(names) > 1
    if as_json:
        plain: dict[str, Any] = {}
        for row in rows:
            metrics = {name: m.as_dict() for name, m in row.metrics.items()}
            if several:
                plain.setdefault(str(row.file), {})[row.runtime] = metrics
            else:
                plain[str(row.file)] = metrics
        about = {"against": str(against) if against else None, "threads": request.threads, "batch": request.batch}
        say_json(about | {"files": plain})
        return
    table = _table(["file", "runtime"] if several else ["file"], ratio=several or against is not None)
    for row in rows:
        table.add_row(str(row.file), *([row.runtime] if several else []), *_cells(row.metrics))
    say(table)
    say(f"{_conditions(request.threads, request.batch, request.throughput_batch)}; random inputs")


def _measure(file: Path, name: str | None, against: Path | None, names: Sequence[str], request: Request) -> _Row:
    """All measurements of one file on one runtime; the ratios mean something only when there is something else."""
    import numpy as np

    from petra.core.measurement import Measurement
    from petra.measure.client import run_bench
    from petra.measure.random_inputs import random_inputs
    from petra.runtimes.base import InputSpec, files_of

    inputs = _inputs_of(file, name)
    other = against or file
    if against is not None and (wanted := _inputs_of(against, name)) != inputs:
        raise ConfigError(
            f"{file} and {against} take different inputs: {_interface(inputs)} and {_interface(wanted)}",
            hint="only models of one interface can be compared",
        )
    specs = [InputSpec(s["name"], s["dtype"], tuple(s["shape"])) for s in inputs]
    with tempfile.TemporaryDirectory(prefix="petra-inputs-") as data:
        for key, array in random_inputs(specs, max(request.batch, request.throughput_batch)).items():
            np.save(Path(data) / f"{key}.npy", array, allow_pickle=False)
        ready = replace(
            request,
            runtime=runtime_of(file, name),
            artifact=str(file),
            data=data,
            baseline=str(other),
            baseline_runtime=runtime_of(other, names[0] if names else None),
        )
        found = run_bench(ready)
    if against is None and len(names) < 2:
        found = {key: m for key, m in found.items() if not key.endswith("_ratio")}
    size = sum(f.stat().st_size for f in files_of(file))
    return _Row(file, ready.runtime, found | {"size_bytes": Measurement(float(size), unit="B")})


def _inputs_of(file: Path, name: str | None) -> list[dict[str, Any]]:
    """The inputs a file declares, asked of the runtime its suffix stands for: some others take a minute to say."""
    from petra.runtimes.table import runtimes_by_suffix

    specs: list[dict[str, Any]] = inspect_file(file, runtimes_by_suffix().get(file.suffix, name))["inputs"]
    return specs


def _interface(specs: list[dict[str, Any]]) -> str:
    return ", ".join(f"{s['name']} {s['dtype']} {shape_text(s['shape'])}" for s in specs)


# ---- a study ---------------------------------------------------------------------------------------------------------


def _bench_study(
    directory: Path, names: Sequence[str], pick: str, given: Mapping[str, Any], *, trust: bool, as_json: bool
) -> None:
    from petra.report.front import Front
    from petra.report.record import StudyRecord

    record = StudyRecord.load(directory)
    member = Front.of_record(record).pick(pick)

    from petra.api import live_study
    from petra.runtimes.base import Target

    target = replace(Target(**record.config.target.model_dump()), **given)
    runtimes = names or _available(target.runtime)
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
