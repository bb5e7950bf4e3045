"""Standard output and standard error, whatever they are connected to, and how wide they are."""

from __future__ import annotations

import codecs
import os
import sys
from io import TextIOWrapper
from types import TracebackType
from typing import IO, NoReturn, cast

from petra.core.text import printable, whole_number

PIPE_CLOSED = 141  # what shells say of a process that SIGPIPE ended
_MIN_WIDTH, _MAX_WIDTH = 20, 1000
_ERRORS = "petra.plain"
# What petra prints beyond ASCII, for terminals that have nothing else.
_SPELT = {
    "±": "+-",
    "→": "->",
    "…": "...",
    "\u00d7": "x",
    "\u2013": "-",
    "\u2014": "-",
    "·": "*",
    "•": "*",
    "━": "=",
}


def columns() -> int | None:
    """What COLUMNS asks for, within reason; None when it asks for nothing that makes sense."""
    asked = whole_number(os.environ.get("COLUMNS", ""))
    return None if asked is None or asked < 1 else min(max(asked, _MIN_WIDTH), _MAX_WIDTH)


def prepare() -> None:
    """Make the process's streams such that nothing odd about them ends a command in a traceback.

    Text that the encoding lacks is spelt in ASCII. A reader that went away ends the process with
    141, a full disk with a message and 2, closed standard output likewise at once: the next file
    opened would take its place. What cannot be said on standard error is left unsaid.
    """
    codecs.register_error(_ERRORS, _spell)
    for name in ("COLUMNS", "LINES", "TERMINAL_WIDTH"):  # other libraries take them at their word
        if name in os.environ and not 0 < (whole_number(os.environ[name]) or 0) <= _MAX_WIDTH:
            del os.environ[name]
    closed = [number for number in (0, 1, 2) if not _is_open(number)]
    for _ in closed:
        os.open(os.devnull, os.O_RDWR)
    sys.stderr = _wrapped(sys.stderr, 2, _Unsaid)
    if 1 in closed:
        _end("standard output is closed; connect it to a terminal, a file or /dev/null", 2)
    sys.stdout = _wrapped(sys.stdout, 1, _Output)
    sys.excepthook = _show_bug


class _Output(TextIOWrapper):
    """Standard output, whose failures end the process in the way that shells expect."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            _fail(error)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            _fail(error)


class _Unsaid(TextIOWrapper):
    """Standard error, of which nobody can be told that it failed."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            _silence(2)


def finish() -> None:
    """Write what is left of standard output, while its failure can still be told."""
    sys.stdout.flush()


def _fail(error: OSError) -> NoReturn:
    _silence(1)
    if isinstance(error, BrokenPipeError):
        sys.exit(PIPE_CLOSED)
    _end(f"standard output cannot be written: {error.strerror}", 2)


def _end(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(code)


def _silence(number: int) -> None:
    """Let a descriptor lead nowhere, so that what is buffered does not fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def _wrapped(stream: IO[str] | None, number: int, kind: type[TextIOWrapper]) -> TextIOWrapper:
    if stream is None:
        return kind(open(number, "wb", closefd=False), "utf-8", _ERRORS, line_buffering=True)
    given = cast(TextIOWrapper, stream)
    encoding, lines = given.encoding, given.line_buffering
    return kind(given.detach(), encoding, _ERRORS, line_buffering=lines or number == 2)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    ascii_text = "".join(
        _SPELT.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text
    )
    return ascii_text, error.end


def _show_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A bug's traceback, whose message may quote a file."""
    import traceback

    text = "".join(traceback.format_exception(kind, error, trace))
    print(printable(text, lines=True), end="", file=sys.stderr, flush=True)
