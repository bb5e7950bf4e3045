"""petra verify, package: judge a model file by itself, whoever made it; compile one's own ahead of
time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from petra.cli.completion import RuntimeOption
from petra.cli.output import JsonFlag, note, say, say_json
from petra.core.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from petra.core.interface import Interface
    from petra.core.target import Target

Threads = Annotated[int, typer.Option(min=1, max=1024, help="Threads of the runtime.")]
Inputs = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.npz",
        help="Inputs to run on, an array under each input's name. Default: random ones.",
    ),
]
TimeLimit = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="When to give a file up that does not come to an end."),
]

VERIFY_LIMIT_S = 120.0
"""Time for trying a file a dozen times. One that takes longer is slow indeed, or endless."""


def verify(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A model file, or the directory of a bundle.")
    ],
    runtime: RuntimeOption = None,
    inputs: Inputs = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Threads of the runtime. Default: as measured, else 1."),
    ] = None,
    time_limit: TimeLimit = None,
    as_json: JsonFlag = False,
) -> None:
    """Check a model file, whoever made it: load it in a fresh process, run it, compare it with its
    bundle.

    It runs on random inputs of the shapes it declares, or on those of an .npz file. With a bundle,
    every file is held against its SHA-256, and the sample in it has to give what was recorded; what
    changed since it was measured, machine and libraries, is said. No study is needed. Loading runs
    no code from the file, and nothing is imported from beside it. Exit code 2 when anything is
    wrong.

    For example:

    - `petra verify model.onnx`
    - `petra verify bundle/`
    - `petra verify petra-demo/export/knee/model.onnx --json`
    - `petra verify theirs.onnx --inputs a-few-items.npz --time-limit '5 min'`
    """
    from petra.cli.verified import verified

    def as_asked(model: Path, count: int) -> Target | None:
        return target_of(model, runtime, {"threads": count}) if runtime or threads else None

    limit = seconds(time_limit, VERIFY_LIMIT_S)
    with in_time():
        checked, lines = verified(file, threads, as_asked, time_limit_s=limit)
    file, checked["bytes"] = Path(checked["file"]), _size(Path(checked["file"]))
    found = inspect_file(file, runtime, checked["threads"], inputs=inputs, time_limit_s=limit)
    if as_json:
        say_json(checked | found)
        return
    say(f"{file}: {_bytes(checked['bytes'])}, {checked['bundle']}")
    for line in (*described(found), *lines):
        say(line)
    say(f"ok, in a fresh process {'with' if found['torch_loaded'] else 'without'} torch")


def described(found: Mapping[str, Any]) -> Iterator[str]:
    """What `petra.measure.inspect_main` found of a file, in lines for people."""
    for spec in found["inputs"]:
        yield f"input   {spec['name']}: {spec['dtype']} {shape_text(spec['shape'], spec['names'])}"
    for run in found["runs"]:
        shapes = ", ".join(f"{name} {shape_text(shape)}" for name, shape in run["outputs"].items())
        call = f"batch {run['batch']}" if found["axes"] or found["fixed"] else "one call"
        yield f"{call}: {'finite ' if run['finite'] else ''}outputs {shapes}"
    for remark in _remarks(found):
        yield f"note: {remark}"
    if "operators" in found:
        yield from _operators(found["operators"])


def _remarks(found: Mapping[str, Any]) -> list[str]:
    said = []
    if found["fixed"]:
        said.append(f"the file takes {found['fixed']} item(s) in every call, and no other batch")
    elif not found["inputs"]:
        said.append("it takes no inputs: what it returns is constant, or random")
    elif not found["axes"]:
        said.append("no size that it declares is a free batch")
    if any(None in _besides_the_batch(spec, found["axes"]) for spec in found["inputs"]):
        tried = ", ".join(f"{name} {shape_text(shape)}" for name, shape in found["tried"].items())
        said.append(f"of its free sizes, these were tried: {tried}")
    said += found["notes"]
    if found["batch_difference"] > 0.01:
        said.append(
            f"an item's outputs depend on its batch, by {found['batch_difference']:.1%} of their"
            " spread"
        )
    return said


def _besides_the_batch(spec: Mapping[str, Any], axes: Mapping[str, int]) -> list[int | None]:
    return [size for axis, size in enumerate(spec["shape"]) if axes.get(spec["name"]) != axis]


def package(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.pt2", help="A program exported for a PyTorch runtime.")
    ],
    to: Annotated[
        Path | None, typer.Option(help="The package. Default: FILE.aot.pt2 beside it.")
    ] = None,
    threads: Threads = 1,
    as_json: JsonFlag = False,
) -> None:
    """Compile a PyTorch program to native code for this machine's CPU, so that running it needs no
    compiler.

    The package is compared with the program once, here, where it was made. It contains a compiled
    library: load it with torch._inductor.aoti_load_package, and only from people you trust. petra
    itself opens no such file; its figures are those of the program it is made from, under the
    runtime torch.compile.

    For example:

    - `petra package model.pt2`
    - `petra package model.pt2 --to fast.pt2 --threads 4`
    """
    from petra.measure.random_inputs import random_items
    from petra.runtimes.torch_ahead import compile_ahead

    target = to or file.with_suffix(".aot.pt2")
    interface = interface_in(inspect_file(file, "torch"))
    note(f"compiling {file}")
    difference = compile_ahead(file, target, random_items(interface, 5), threads=threads)
    if as_json:
        say_json(
            {
                "package": str(target),
                "bytes": _size(target),
                "relative_error": difference,
                "threads": threads,
            }
        )
        return
    say(f"{target}: {_bytes(_size(target))}, for {threads} thread(s) of this machine's CPU")
    say(
        f"agrees with {file}: root mean square difference over the outputs' spread at most"
        f" {difference:.1e}"
    )
    say(
        "it contains compiled code: petra does not load it, and nobody should from people they do"
        " not trust"
    )


def _size(file: Path) -> int:
    """Bytes of all that ships, refusing what is no file."""
    from petra.runtimes.table import files_of

    if not file.is_file():
        raise ArtifactError(f"{file}: no such file", hint="give the path of a model file")
    return sum(f.stat().st_size for f in files_of(file))


def target_of(file: Path, given: str | None, sizes: Mapping[str, Any]) -> Target:
    """The target called `given`, or that of the file's suffix; `sizes` are more of it."""
    from petra.core.target import Target
    from petra.runtimes.table import runtime_for, runtimes_by_suffix

    if given is not None:
        target = Target(given, **sizes)
        runtime_for(target)
        return target
    by_suffix = runtimes_by_suffix()
    if file.suffix not in by_suffix:
        raise ConfigError(
            f"{file}: no runtime is known for {file.suffix or 'a name without suffix'}",
            hint=f"known: {', '.join(sorted(by_suffix))}; or give --runtime",
        )
    return Target(by_suffix[file.suffix], **sizes)


def inspect_file(
    file: Path,
    runtime: str | None,
    threads: int = 1,
    *,
    inputs: Path | None = None,
    time_limit_s: float = VERIFY_LIMIT_S,
) -> dict[str, Any]:
    """What `petra.measure.inspect_main` says of a file, tried in a fresh process, and whether that
    loaded torch.
    """
    from petra.measure.client import alone
    from petra.measure.inspect_main import InspectRequest, inspect

    _size(file)
    target = target_of(file, runtime, {"threads": threads})
    request = InspectRequest(target, str(file), inputs=str(inputs or ""))
    with in_time():
        found, torch_loaded = alone(
            inspect,
            request,
            artifact=str(file),
            runtimes=(target.runtime,),
            threads=threads,
            time_limit_s=time_limit_s,
        )
    return found | {"torch_loaded": torch_loaded}


def interface_in(found: Mapping[str, Any]) -> Interface:
    """What `inspect_file` says of a file's inputs, as the record it was."""
    from petra.core.interface import Interface

    return Interface.from_dict(found["interface"])


@contextmanager
def in_time() -> Iterator[None]:
    """Say what to do about a file that was given up."""
    from petra.workers.failures import TimeLimitExceeded

    try:
        yield
    except TimeLimitExceeded as error:
        error.hint = "it is slow, or never ends; --time-limit gives it longer"
        raise


def seconds(given: str | None, default: float) -> float:
    """The value of --time-limit."""
    from petra.core.quantities import parse_duration

    if given is None:
        return default
    try:
        found = float(str(parse_duration(given)))
    except ValueError as error:
        raise ConfigError(f"--time-limit: {error}") from None
    if not 0 < found < float("inf"):
        raise ConfigError(f"--time-limit: got {given!r}", hint="for example '5 min'")
    return found


def _operators(operators: Mapping[str, Any]) -> Iterator[str]:
    running = ", ".join(f"{count} {name}" for name, count in operators["running"].items())
    yield f"operators on this machine: {running}"
    compute, integer = operators["compute"], operators["integer"]
    if compute:
        yield (
            f"arithmetic in integers: {integer} of {compute} convolutions and matrix products"
            f" ({integer / compute:.0%})"
        )


def shape_text(sizes: Sequence[int | None], names: Sequence[str] = ()) -> str:
    """'(batch, 3, time, 32)': sizes that are free by name, batch for a first one without, ? for
    others.
    """
    names = names or [""] * len(sizes)
    words = [
        str(size) if size is not None else name or ("?" if axis else "batch")
        for axis, (size, name) in enumerate(zip(sizes, names, strict=True))
    ]
    return f"({', '.join(words)})"


def _bytes(size: Any) -> str:
    from petra.report.numbers_text import si

    return si(float(size), "B")
