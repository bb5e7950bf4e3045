"""Text from files and other people, made fit for a terminal: what would act is shown escaped."""

from __future__ import annotations

import json
import re
import unicodedata


def printable(text: object, *, lines: bool = False) -> str:
    """`text` on one line, in which every character can be seen; with `lines`, line breaks stay.

    Control characters (escape sequences begin with one), marks that turn the direction of writing,
    invisible characters, unassigned ones and half surrogates become ``\\x1b``, ``\\u202e`` and the
    like. Nothing else changes, so that names in any script stay readable.
    """
    string = text if isinstance(text, str) else str(text)
    if string.isprintable():
        return string
    return "".join(c if _is_plain(c, lines) else _escaped(c) for c in string)


def _is_plain(character: str, lines: bool) -> bool:
    if character == "\n":
        return lines
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def first_line(text: str) -> str:
    """The first line of a message that has something on it, '' when there is none."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def json_text(data: object) -> str:
    """Indented JSON in which every character can be seen; ValueError for NaN and infinities."""
    text = json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False)
    if all(line.isprintable() for line in text.split("\n")):
        return text
    return "".join(c if _is_plain(c, True) else json.dumps(c)[1:-1] for c in text)


def whole_number(text: str) -> int | None:
    """The integer that ASCII digits spell, None for anything else or one of more than 64 bits."""
    if not re.fullmatch(r"\s*[-+]?[0-9]{1,19}\s*", text, re.ASCII):
        return None
    number = int(text)
    return number if abs(number) < 2**63 else None


def shown(value: object, limit: int = 120) -> str:
    """What was given, for a message: its `repr` on one line, cut when it is long."""
    if isinstance(value, int) and abs(value) >= 2**63:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = printable(repr(value))
    except (ValueError, RecursionError):  # it holds such an integer, or itself
        text = f"a {type(value).__name__}"
    return text if len(text) <= limit else f"{text[:limit]} ..."
