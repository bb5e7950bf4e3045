"""Tables from CSV, parquet and folders of Hugging Face data sets, as pandas frames.

Nothing is guessed here: fields of a CSV stay text as they are written, and what a column is gets
decided where it is used (`petra.data.frames`). The index of a frame says where a row was: its line
in a CSV file, its number elsewhere.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from petra.core.errors import ConfigError, DataError
from petra.core.text import shown
from petra.data.fields import read_text

if TYPE_CHECKING:
    import pandas as pd

NAMELESS = "nameless"
"""Of a frame's ``attrs``: the columns that have no name in the file."""

_SEPARATORS = (";", "\t", "|", ",")


def read_csv(
    path: str | Path,
    *,
    separator: str = ",",
    quote: str | None = '"',
    encoding: str = "utf-8",
    names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """A text table, gzipped or not: its fields as they are written, an empty field as "".

    The first line names the columns unless `names` does. `quote` encloses fields that hold the
    separator or line breaks, and may have spaces before it, which no field then begins with; None
    where quotation marks are characters like others, as in GLUE's files. A column without a name,
    such as the row numbers that pandas writes, is called ``column_1`` by its place. The index is
    the line in the file, of a row of several lines the last. Costs about a second for two million
    fields. Raises DataError, naming the line, for rows that are shorter or longer than the header
    and for bytes that are not of this encoding.
    """
    given = None if names is None else list(names)
    header = None if given is None else _header(given, separator, "names")
    rows: list[list[str]] = []
    lines: list[int] = []
    for line, row in _rows(path, read_text(path, encoding=encoding), separator, quote):
        if header is None:
            given, header = row, _header(row, separator, f"{path}: line {line}")
            continue
        if len(row) != len(header):
            raise DataError(
                f"{path}: line {line} has {len(row)} fields, there are {len(header)} columns",
                hint=f"every row has one field for each of: {_listed(header)}",
            )
        rows.append(row)
        lines.append(line)
    if given is None or header is None or not rows:
        raise DataError(f"{path} has no rows", hint="at least one line below the header")
    frame = _frame(header, rows, lines, path)
    frame.attrs[NAMELESS] = [h for g, h in zip(given, header, strict=True) if not g.strip()]
    return frame


def _rows(
    path: str | Path, text: str, separator: str, quote: str | None
) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, and the line where each ends."""
    for option, value in (("separator", separator), ("quote", quote)):
        if value is not None and (len(value) != 1 or value in "\r\n"):
            raise ConfigError(f"{option}: {shown(value, 40)}", hint="one character")
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        quotechar=quote,
        quoting=csv.QUOTE_NONE if quote is None else csv.QUOTE_MINIMAL,
        skipinitialspace=quote is not None and separator != " ",
        strict=True,
    )
    try:
        yield from ((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise DataError(
            f"{path}: line {reader.line_num}: {error}",
            hint="is a quotation mark left open? quote=None takes them as they are",
        ) from error


def _header(row: list[str], separator: str, where: str) -> list[str]:
    """Names of the columns; one without a name, such as a row number, is named by its place."""
    names = [name.strip() or f"column_{i}" for i, name in enumerate(row, start=1)]
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise DataError(f"{where}: two columns {twice!r}", hint="give each column its own name")
    other = [s for s in _SEPARATORS if s != separator and len(names) == 1 and s in names[0]]
    if other:
        raise DataError(
            f"{where}: a single column {shown(names[0], 60)}", hint=f"separator={other[0]!r}?"
        )
    return names


def _frame(
    header: list[str], rows: list[list[str]], lines: list[int], path: str | Path
) -> pd.DataFrame:
    import pandas as pd

    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    frame = pd.DataFrame(columns, index=pd.Index(lines, name="line"), dtype=object)
    frame.attrs["path"] = str(path)
    return frame


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
