"""What every command shares: where text goes, how errors look, what `--json` prints."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from typer.core import TyperGroup

from petra.core.errors import PetraError

PIPED_WIDTH = 100  # columns when the output goes to a file or a pipe and nobody says otherwise

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def console(*, stderr: bool = False) -> Console:
    """A console on standard output, or standard error, as wide as the terminal."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else int(os.environ.get("COLUMNS") or PIPED_WIDTH)
    return Console(stderr=stderr, width=width, highlight=False)


def say(renderable: RenderableType) -> None:
    """Print to standard output. A string is one line, however long: paths and commands must survive being copied."""
    console().print(renderable, markup=False, soft_wrap=isinstance(renderable, str))


def note(text: str) -> None:
    """A line for the person at the terminal, on standard error, so that piped output stays clean."""
    console(stderr=True).print(text, markup=False, soft_wrap=True)


def say_json(data: Any) -> None:
    """Print data as JSON; NaN and infinities are refused rather than printed as no JSON reader accepts them."""
    typer.echo(json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False))


def width() -> int:
    """Columns of standard output."""
    return console().width


class PetraGroup(TyperGroup):
    """Turns a deliberate error of any command into one message on standard error and exit code 2.

    Anything else is a bug and keeps its traceback.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PetraError as error:
            lines = f"error: {error.message}" + (f"\n  {error.hint}" if error.hint else "")
            typer.echo(lines, err=True)
            raise typer.Exit(2) from None
