"""The `petra` command. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from petra import __version__
from petra.cli import (
    artifact,
    bench,
    compare,
    doctor,
    explain,
    init,
    methods,
    recheck,
    results,
    search,
    streams,
    transfer,
    watch,
    workloads,
)
from petra.cli.output import PetraGroup
from petra.core.noise import hush
from petra.workers.imports import settle, settled

app = typer.Typer(
    cls=PetraGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Search over training and compression pipelines for the Pareto set of deployable models.",
    epilog="Start with: petra demo, and for a model of your own: petra init",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"petra {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            "-V",
            callback=_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    hush()


_PANELS: Mapping[str, tuple[Callable[..., None], ...]] = {
    "Search": (search.demo, init.init, search.run, search.resume, transfer.transfer),
    "Results": (
        results.show,
        watch.watch,
        results.report,
        explain.explain,
        compare.compare,
        results.export,
        results.export_optuna,
        recheck.recheck,
    ),
    "Model files": (artifact.verify, bench.bench, artifact.package),
    "About petra and this machine": (methods.methods, workloads.workloads, doctor.doctor),
}
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 a bug, 2 a mistake in the input, 3 `recheck`
    found that something moved, 130 interrupted, 141 when whoever read the output has gone."""
    sys.path[:] = settled(sys.path)
    settle(os.environ)
    streams.prepare()
    # Threads that spin starve each other on shared cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    finally:
        streams.finish()


if __name__ == "__main__":
    main()
