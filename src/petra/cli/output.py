"""What every command shares: where text goes, how errors look, what `--json` prints.

All that petra prints goes through here, and here alone it is made fit for a terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Annotated, Any, NoReturn

import typer
from rich.console import Console, RenderableType
from typer.core import TyperGroup

from petra.cli.streams import columns
from petra.core.errors import PetraError, did_you_mean
from petra.core.suggest import nearest_name
from petra.core.text import json_text, printable
from petra.progress.console import PIPED_WIDTH, PlainConsole

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


class _Plain(PlainConsole):
    """One whose reader may go away."""

    def on_broken_pipe(self) -> NoReturn:
        raise SystemExit(141)


def console(*, stderr: bool = False) -> Console:
    """A console on standard output, or standard error, as wide as the terminal."""
    stream: IO[str] = sys.stderr if stderr else sys.stdout
    width = columns() or (None if stream.isatty() else PIPED_WIDTH)
    return _Plain(stderr=stderr, width=width, highlight=False, emoji=False)


def say(renderable: RenderableType) -> None:
    """Print to standard output.

    A string is one line, however long: paths and commands must survive being copied.
    """
    console().print(renderable, markup=False, soft_wrap=isinstance(renderable, str))


def note(text: str) -> None:
    """A line for the person at the terminal, on standard error: piped output stays clean."""
    console(stderr=True).print(text, markup=False, soft_wrap=True)


def say_json(data: Any) -> None:
    """Print data as JSON; NaN and infinities are refused, as no JSON reader accepts them."""
    typer.echo(json_text(data))


def width() -> int:
    """Columns of standard output."""
    return console().width


class PetraGroup(TyperGroup):
    """Turns a deliberate error of any command into one message on standard error and exit code 2.

    Anything else is a bug and keeps its traceback.
    """

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> Any:
        with _readable_usage():
            return super().make_context(info_name, args, *more, **extra)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        self.suggest_commands = False  # typer's own suggests whatever looks alike
        try:
            return super().resolve_command(ctx, args)
        except _UsageError as error:
            if args and not args[0].startswith("-"):
                hint = did_you_mean(args[0], self.commands)
                error.message = f"{error.message.rstrip('.')}; {hint}"
            raise

    def invoke(self, ctx: Any) -> Any:
        try:
            with _readable_usage():
                return super().invoke(ctx)
        except PetraError as error:
            note(f"error: {error.message}" + (f"\n  {error.hint}" if error.hint else ""))
            raise typer.Exit(2) from None


_UsageError: type[Any] = typer.BadParameter.__mro__[1]  # typer keeps its base to itself


@contextmanager
def _readable_usage() -> Iterator[None]:
    """What was typed, or what a shell made of file names, comes back in messages about usage. An
    option is suggested only where it is really near.
    """
    try:
        yield
    except _UsageError as error:
        error.message = printable(error.message)
        if hasattr(error, "possibilities"):
            known = [name for p in error.ctx.command.params for name in p.opts] if error.ctx else []
            meant = nearest_name(error.option_name, known)
            error.possibilities = [meant] if meant else None
        raise
