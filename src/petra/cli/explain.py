"""petra explain: why a candidate is slower, why parts of it are in float, and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from petra.cli.artifact import Inputs
from petra.cli.completion import RuntimeOption
from petra.cli.output import JsonFlag, note, say, say_json


def explain(
    what: Annotated[
        Path,
        typer.Argument(metavar="DIR|FILE", help="A study, a bundle, or a model file."),
    ],
    pick: Annotated[
        str,
        typer.Argument(
            metavar="[PICK]",
            help="Of a study: smallest, fastest, best, knee, the number of a measured trial, or"
            " front for all of its members.",
        ),
    ] = "knee",
    against: Annotated[
        Path | None, typer.Option(help="The untouched model's file, to lay a file beside.")
    ] = None,
    runtime: RuntimeOption = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads. Default: 1, or the bundle's.")
    ] = None,
    inputs: Inputs = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All rows of every table, not the first ones.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Profile again although a profile is kept.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Explain a candidate: where its time goes by operator, which layers are in float and why, what
    it cost, and what to do about it.

    The model file runs in a process of its own under its runtime's profiler, beside the untouched
    model. That takes about ten seconds, and changes nothing about the study's figures. What was
    found is kept in DIR/profiles, for the report.

    For example:

    - `petra explain petra-demo`
    - `petra explain petra-demo 12 --all`
    - `petra explain petra-demo front`, before `petra report petra-demo`
    - `petra explain export/knee/model.onnx --against model.onnx --threads 2`
    - `petra explain petra-demo smallest --json | jq '.advice'`
    """
    from petra.explaining.words import in_words
    from petra.report.explained import explain as explain_one
    from petra.report.explained import explain_front

    note(f"profiling {what}")
    files = (against, runtime, threads, inputs)
    if pick == "front" and what.is_dir() and all(one is None for one in files):
        found = explain_front(what, fresh=fresh)
    else:
        one = explain_one(
            what,
            pick,
            against=against,
            runtime=runtime,
            threads=threads,
            inputs=inputs,
            fresh=fresh,
        )
        found = [one]
    if as_json:
        plain = [one.as_dict() for one in found]
        say_json(plain if pick == "front" else plain[0])
        return
    for one in found:
        for line in in_words(one, everything=everything).split("\n"):
            say(line)
        say("")
