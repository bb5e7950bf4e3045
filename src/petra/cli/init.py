"""petra init: a study file and a module to begin with, for a kind of model and data."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from petra.cli.completion import RuntimeNameOption, starter_names
from petra.cli.output import JsonFlag, note, say, say_json
from petra.cli.starter import MODULE, STARTERS, Starter
from petra.core.errors import ConfigError, did_you_mean
from petra.core.text import shown

DEFAULT_DIRECTORY, DEFAULT_RUNTIME, DEFAULT_TIME = Path("my-study"), "onnxruntime", "10 min"


def init(
    model: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help=f"One of {', '.join(STARTERS)}.",
            autocompletion=starter_names,
        ),
    ] = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="Where to. Default: my-study.")
    ] = None,
    runtime: RuntimeNameOption = None,
    time: Annotated[
        str | None, typer.Option(help="How long the study may search. Default: 10 min.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over the two files where they are there.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a study file and a Python module to begin with, for a kind of model and data.

    Both run as they are, on made-up data, and say where your own model and data go. On a terminal,
    what is not given is asked for. Nothing is written over without --force.

    For example:

    - `petra init`
    - `petra init --model cnn`
    - `petra init --model forecast --dir runs/load --runtime openvino`
    """
    if model is None and not sys.stdin.isatty():
        kinds = "\n  ".join(f"{one.name}: {one.about}" for one in STARTERS.values())
        raise ConfigError("init: for what kind of model?", hint=f"give --model KIND\n  {kinds}")
    if model is None:
        try:
            model, directory, runtime, time = _asked(directory, runtime, time)
        except typer.Abort:  # Ctrl-C, or the end of the input
            note("\nnothing is written")
            raise typer.Exit(130) from None
    starter = _known(model)
    place = directory or DEFAULT_DIRECTORY
    runtime, time = runtime or DEFAULT_RUNTIME, time or DEFAULT_TIME
    _check(runtime, time, place)
    texts = {
        place / "study.yaml": starter.study(directory=str(place), runtime=runtime, time=time),
        place / f"{MODULE}.py": starter.module(),
    }
    _write(texts, force=force)
    if as_json:
        say_json({"model": starter.name, "files": [str(file) for file in texts]})
        return
    _conclude(starter, texts, place)


def _asked(
    directory: Path | None, runtime: str | None, time: str | None
) -> tuple[str, Path, str, str]:
    """What was not given, asked of the person at the terminal."""
    for i, one in enumerate(STARTERS.values(), 1):
        note(f"{i}  {one.name:12s} {one.about}")
    names = list(STARTERS)
    answer = str(typer.prompt("Kind of model, name or number", default=names[0], err=True)).strip()
    known = answer.isascii() and answer.isdecimal() and 1 <= int(answer) <= len(names)
    model = names[int(answer) - 1] if known else answer
    _known(model)
    directory = directory or Path(
        typer.prompt("Directory for the study", default=str(DEFAULT_DIRECTORY), err=True)
    )
    runtime = runtime or str(
        typer.prompt("Runtime that the file is for", default=DEFAULT_RUNTIME, err=True)
    )
    time = time or str(typer.prompt("Time to search", default=DEFAULT_TIME, err=True))
    return model, directory, runtime, time


def _known(model: str) -> Starter:
    if model not in STARTERS:
        raise ConfigError(
            f"init: unknown kind of model {shown(model)}", hint=did_you_mean(model, STARTERS)
        )
    return STARTERS[model]


def _check(runtime: str, time: str, place: Path) -> None:
    """Refuse what the study file could not hold, as reading it would."""
    from petra.config.sections import place as directory
    from petra.core.quantities import parse_duration
    from petra.core.target import Target
    from petra.runtimes.table import runtime_for

    try:
        runtime_for(Target(runtime))
        parse_duration(time)
        directory(str(place))
    except ConfigError as error:
        raise ConfigError(f"init: {error.message}", hint=error.hint) from None
    except ValueError as error:
        raise ConfigError(f"init: {error}") from None
    if unsafe := set(str(place)) & set("\n\r#:'\"{}[]&*!|>%@`$"):
        raise ConfigError(
            f"init: --dir: {shown(str(place))} has {shown(''.join(sorted(unsafe)))} in it",
            hint="a study file names this directory: choose a plainer name",
        )
    if place.exists() and not place.is_dir():
        raise ConfigError(f"init: {place} is a file", hint="give another --dir")


def _write(texts: Mapping[Path, str], *, force: bool) -> None:
    there = [str(file) for file in texts if file.exists()]
    if there and not force:
        raise ConfigError(
            f"init: {_and(there)} there already",
            hint="give another --dir, or --force to write over what is there",
        )
    for file, text in texts.items():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"init: cannot write {file}: {error.strerror}", hint="give another --dir"
            ) from error


def _and(names: Iterable[str]) -> str:
    found = list(names)
    return f"{' and '.join(found)} {'is' if len(found) == 1 else 'are'}"


def _conclude(starter: Starter, texts: Mapping[Path, str], place: Path) -> None:
    for file, about in zip(texts, ("the study", "its model and data"), strict=True):
        say(f"{file}: {about}")
    if starter.extra:
        say(f"It needs the extra {starter.extra}: pip install 'petra[{starter.extra}]'")
    say("Next:")
    study = shlex.quote(str(place / "study.yaml"))
    say(f'  petra run {study} --time "1 min"    on made-up data, as it is')
    say(f"  then put your own model and data into {place / MODULE}.py, where it says YOURS")
