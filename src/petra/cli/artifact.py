"""petra verify, bench: judge a model file by itself, whoever made it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from petra.cli.output import JsonFlag, say, say_json
from petra.core.errors import ArtifactError, ConfigError, did_you_mean

if TYPE_CHECKING:
    from petra.core.measurement import Measurement
    from petra.measure.bench_main import Request

Threads = Annotated[int, typer.Option(min=1, max=1024, help="Threads of the runtime.")]
Runtime = Annotated[str | None, typer.Option(help="Runtime, instead of the one the file's suffix stands for.")]


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A model file.")],
    runtime: Runtime = None,
    threads: Threads = 1,
    as_json: JsonFlag = False,
) -> None:
    """Check a model file: load it in a fresh process, run it on random inputs, compare it with its bundle.

    Loading runs no code from the file. Exit code 2 when anything is wrong.

    For example:

    - `petra verify model.onnx`
    - `petra verify petra-demo/export/knee/model.onnx --json`
    """
    checked = {"file": str(file), "bytes": _size(file), **_check_bundle(file)}
    found = _inspect(file, runtime, threads)
    if as_json:
        say_json(checked | found)
        return
    say(f"{file}: {_bytes(checked['bytes'])}, {checked['bundle']}")
    for spec in found["inputs"]:
        say(f"input   {spec['name']}: {spec['dtype']} {_shape(spec['shape'])}")
    for run in found["runs"]:
        shapes = ", ".join(f"{name} {_shape(shape)}" for name, shape in run["outputs"].items())
        say(f"batch {run['batch']}: finite outputs {shapes}")
    if found["batch_difference"] > 0.01:
        say(f"note: an item's outputs depend on its batch, by {found['batch_difference']:.1%} of their spread")
    if "operators" in found:
        _say_operators(found["operators"])
    say(f"ok, in a fresh process {'with' if found['torch_loaded'] else 'without'} torch")


def bench(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Model files.")],
    against: Annotated[Path | None, typer.Option(help="The file they are compared with, timed in turns.")] = None,
    threads: Threads = 1,
    batch: Annotated[int, typer.Option(min=1, help="Items per call for latency.")] = 1,
    throughput_batch: Annotated[int, typer.Option(min=1, help="Items per call for throughput.")] = 64,
    runtime: Runtime = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure latency, throughput and memory of model files on random inputs of the shapes they declare.

    With --against, both files are timed in alternating blocks in one process: the ratio is what to trust on a machine
    that is not idle.

    For example:

    - `petra bench model.onnx`
    - `petra bench small.onnx tiny.onnx --against model.onnx --threads 2`
    """
    from petra.measure.bench_main import Request
    from petra.measure.host import describe_host

    request = Request(
        runtime="",
        artifact="",
        answer="",
        data="",
        threads=threads,
        batch=batch,
        throughput_batch=throughput_batch,
        confirm=True,
        host=str(describe_host()["id"]),
    )
    found = {str(file): _bench(file, against, runtime, request) for file in files}
    if as_json:
        plain = {name: {k: m.as_dict() for k, m in metrics.items()} for name, metrics in found.items()}
        say_json({"against": str(against) if against else None, "threads": threads, "batch": batch, "files": plain})
        return
    say(_bench_table(found, paired=against is not None))
    say(f"{threads} thread(s); latency at batch {batch}, throughput at batch {throughput_batch}; random inputs")


# ---- verify ----------------------------------------------------------------------------------------------------------


def _size(file: Path) -> int:
    if not file.is_file():
        raise ArtifactError(f"{file}: no such file", hint="give the path of a model file")
    return file.stat().st_size


def _runtime_of(file: Path, given: str | None) -> str:
    from petra.runtimes.table import RUNTIMES

    if given is not None:
        RUNTIMES.get(given)
        return given
    by_suffix = {RUNTIMES.get(name).suffix: name for name in RUNTIMES.names()}
    if file.suffix not in by_suffix:
        raise ConfigError(
            f"{file}: no runtime is known for {file.suffix or 'a name without suffix'}",
            hint=f"{did_you_mean(file.suffix, by_suffix)}; or give --runtime",
        )
    return by_suffix[file.suffix]


def _inspect(file: Path, runtime: str | None, threads: int) -> dict[str, Any]:
    from petra.measure.client import ask
    from petra.measure.inspect_main import InspectRequest

    _size(file)
    request = InspectRequest(_runtime_of(file, runtime), str(file), threads=threads)
    return ask("petra.measure.inspect_main", asdict(request))


def _check_bundle(file: Path) -> dict[str, str]:
    """Compare the file with what its bundle recorded at export. Raises ArtifactError when they differ."""
    from petra.report.bundle import METRICS, companion, sha256

    digest = sha256(file)
    beside = companion(file, METRICS)
    if beside is None:
        return {"sha256": digest, "bundle": "no bundle beside it to compare with"}
    try:
        recorded = {str(f["name"]): str(f["sha256"]) for f in json.loads(beside.read_text(encoding="utf-8"))["files"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{beside}: cannot be read: {error}", hint="export the model again") from None
    for name in recorded:
        if not (file.parent / name).is_file():
            raise ArtifactError(f"{file.parent / name}: the bundle's file is missing", hint="copy the whole bundle")
        if sha256(file.parent / name) != recorded[name]:
            raise ArtifactError(
                f"{file.parent / name}: not the file that was measured: {beside.name} records another SHA-256",
                hint="it is damaged or was changed; export it again",
            )
    if file.name not in recorded:
        return {"sha256": digest, "bundle": f"{beside.name} is about {', '.join(recorded)}, not about this file"}
    return {"sha256": digest, "bundle": f"the file that {beside.name} describes"}


def _say_operators(operators: Mapping[str, Any]) -> None:
    running = ", ".join(f"{count} {name}" for name, count in operators["running"].items())
    say(f"operators on this machine: {running}")
    compute, integer = operators["compute"], operators["integer"]
    if compute:
        say(
            f"arithmetic in integers: {integer} of {compute} convolutions and matrix products ({integer / compute:.0%})"
        )


def _shape(sizes: list[int | None]) -> str:
    names = ["?" if size is None else str(size) for size in sizes]
    return f"({', '.join(['batch', *names[1:]] if sizes and sizes[0] is None else names)})"


def _bytes(size: Any) -> str:
    from petra.report.units import si

    return si(float(size), "B")


# ---- bench -----------------------------------------------------------------------------------------------------------


def _bench(file: Path, against: Path | None, runtime: str | None, request: Request) -> dict[str, Measurement]:
    """All measurements of one file; the ratios mean something only with `against`."""
    import numpy as np

    from petra.core.measurement import Measurement
    from petra.measure.client import run_bench
    from petra.measure.random_inputs import random_inputs
    from petra.runtimes.base import InputSpec

    inputs = _inspect(file, runtime, request.threads)["inputs"]
    other = against or file
    if against is not None and (wanted := _inspect(against, runtime, request.threads)["inputs"]) != inputs:
        raise ConfigError(
            f"{file} and {against} take different inputs: {_inputs(inputs)} and {_inputs(wanted)}",
            hint="only models of one interface can be compared",
        )
    specs = [InputSpec(s["name"], s["dtype"], tuple(s["shape"])) for s in inputs]
    with tempfile.TemporaryDirectory(prefix="petra-inputs-") as data:
        for name, array in random_inputs(specs, max(request.batch, request.throughput_batch)).items():
            np.save(Path(data) / f"{name}.npy", array, allow_pickle=False)
        ready = replace(
            request,
            runtime=_runtime_of(file, runtime),
            artifact=str(file),
            data=data,
            baseline=str(other),
            baseline_runtime=_runtime_of(other, runtime),
        )
        found = run_bench(ready)
    if against is None:
        found = {name: m for name, m in found.items() if not name.endswith("_ratio")}
    return found | {"size_bytes": Measurement(float(file.stat().st_size), unit="B")}


def _inputs(specs: list[dict[str, Any]]) -> str:
    return ", ".join(f"{s['name']} {s['dtype']} {_shape(s['shape'])}" for s in specs)


def _bench_table(found: Mapping[str, Mapping[str, Measurement]], *, paired: bool) -> Table:
    from petra.report.units import interval, value

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("file", overflow="fold")
    titles = ["latency", "95th pct.", *(["latency ratio"] if paired else []), "throughput", "memory", "size"]
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for name, metrics in found.items():
        ratio = metrics.get("latency_ratio")
        within = f" ({interval(ratio)})" if ratio and ratio.stderr else ""
        table.add_row(
            name,
            *(value(m, metrics[m].mean) for m in ("latency_ms", "latency_p95_ms")),
            *([f"{ratio.mean:.2f}x{within}"] if ratio else []),
            *(value(m, metrics[m].mean) for m in ("throughput", "memory_mb", "size_bytes")),
        )
    return table
