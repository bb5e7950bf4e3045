"""Text from files and other people, made fit for a terminal: what would act is shown escaped instead."""

from __future__ import annotations

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
