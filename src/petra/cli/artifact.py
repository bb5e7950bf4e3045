"""petra verify, package: judge a model file by itself, whoever made it; compile one's own ahead of time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from petra.cli.output import JsonFlag, note, say, say_json
from petra.core.errors import ArtifactError, ConfigError, did_you_mean

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
    found = inspect_file(file, runtime, threads)
    if as_json:
        say_json(checked | found)
        return
    say(f"{file}: {_bytes(checked['bytes'])}, {checked['bundle']}")
    for spec in found["inputs"]:
        say(f"input   {spec['name']}: {spec['dtype']} {shape_text(spec['shape'])}")
    for run in found["runs"]:
        shapes = ", ".join(f"{name} {shape_text(shape)}" for name, shape in run["outputs"].items())
        say(f"batch {run['batch']}: finite outputs {shapes}")
    if found["batch_difference"] > 0.01:
        say(f"note: an item's outputs depend on its batch, by {found['batch_difference']:.1%} of their spread")
    if "operators" in found:
        _say_operators(found["operators"])
    say(f"ok, in a fresh process {'with' if found['torch_loaded'] else 'without'} torch")


def package(
    file: Annotated[Path, typer.Argument(metavar="FILE.pt2", help="A program exported for a PyTorch runtime.")],
    to: Annotated[Path | None, typer.Option(help="The package. Default: FILE.aot.pt2 beside it.")] = None,
    threads: Threads = 1,
    as_json: JsonFlag = False,
) -> None:
    """Compile a PyTorch program to native code for this machine's CPU, so that running it needs no compiler.

    The package is compared with the program once, here, where it was made. It contains a compiled library: load it
    with torch._inductor.aoti_load_package, and only from people you trust. petra itself opens no such file; its
    figures are those of the program it is made from, under the runtime torch.compile.

    For example:

    - `petra package model.pt2`
    - `petra package model.pt2 --to fast.pt2 --threads 4`
    """
    from petra.measure.random_inputs import random_inputs
    from petra.runtimes.base import InputSpec
    from petra.runtimes.torch_ahead import compile_ahead

    target = to or file.with_suffix(".aot.pt2")
    specs = [InputSpec(s["name"], s["dtype"], tuple(s["shape"])) for s in inspect_file(file, "torch")["inputs"]]
    note(f"compiling {file}")
    difference = compile_ahead(file, target, random_inputs(specs, 5), threads=threads)
    if as_json:
        say_json({"package": str(target), "bytes": _size(target), "relative_error": difference, "threads": threads})
        return
    say(f"{target}: {_bytes(_size(target))}, for {threads} thread(s) of this machine's CPU")
    say(f"agrees with {file}: root mean square difference over the outputs' spread at most {difference:.1e}")
    say("it contains compiled code: petra does not load it, and nobody should from people they do not trust")


def _size(file: Path) -> int:
    """Bytes of all that ships, refusing what is no file."""
    from petra.runtimes.base import files_of

    if not file.is_file():
        raise ArtifactError(f"{file}: no such file", hint="give the path of a model file")
    return sum(f.stat().st_size for f in files_of(file))


def runtime_of(file: Path, given: str | None) -> str:
    """The runtime `given`, or the one that the file's suffix stands for."""
    from petra.runtimes.table import RUNTIMES, runtimes_by_suffix

    if given is not None:
        RUNTIMES.get(given)
        return given
    by_suffix = runtimes_by_suffix()
    if file.suffix not in by_suffix:
        raise ConfigError(
            f"{file}: no runtime is known for {file.suffix or 'a name without suffix'}",
            hint=f"{did_you_mean(file.suffix, by_suffix)}; or give --runtime",
        )
    return by_suffix[file.suffix]


def inspect_file(file: Path, runtime: str | None, threads: int = 1) -> dict[str, Any]:
    """What `petra.measure.inspect_main` says of a file, tried in a fresh process."""
    from petra.measure.client import ask
    from petra.measure.inspect_main import InspectRequest

    _size(file)
    request = InspectRequest(runtime_of(file, runtime), str(file), threads=threads)
    return ask("petra.measure.inspect_main", asdict(request))


def _check_bundle(file: Path) -> dict[str, str]:
    """Compare the file with what its bundle recorded at export. Raises ArtifactError when they differ."""
    from petra.report.bundle import METRICS, check_recorded, companion, sha256

    digest = sha256(file)
    beside = companion(file, METRICS)
    if beside is None:
        return {"sha256": digest, "bundle": "no bundle beside it to compare with"}
    recorded = check_recorded(beside)
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


def shape_text(sizes: list[int | None]) -> str:
    """'(batch, 3, 32, 32)', with ? for a size that is free."""
    names = ["?" if size is None else str(size) for size in sizes]
    return f"({', '.join(['batch', *names[1:]] if sizes and sizes[0] is None else names)})"


def _bytes(size: Any) -> str:
    from petra.report.units import si

    return si(float(size), "B")
