"""The UCR archive's .tsv files: a series a line, its label first (Dau et al. 2018)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from petra.core.errors import DataError
from petra.data.fields import as_numbers, read_text
from petra.data.series import Series, cut, together


def read_ucr(path: str | Path, *, unequal: bool = False) -> tuple[Series, np.ndarray]:
    """Series float32 (n, 1, length) and their labels, text (n,), of a UCR file such as
    ``GunPoint_TRAIN.tsv``, gzipped or not.

    A line is the label and the values, tab-separated; whole labels are written without a decimal
    point. Missing values become NaN. With `unequal`, missing values at the end of a line are the
    padding of a shorter series, as the archive has it: the series are then a list of (1, length)
    unless they turn out equally long. Raises DataError naming line and field.
    """
    rows: list[np.ndarray] = []
    labels: list[str] = []
    lines: list[int] = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        fields = line.strip(" \r").split("\t")
        if fields == [""]:
            continue
        where = f"{path}: line {number}"
        if len(fields) < 2:
            raise DataError(
                f"{where} has one field", hint="a label and the values, separated by tabs"
            )
        row = as_numbers(fields[1:], partial(_field, where))
        if rows and len(row) != len(rows[0]):
            raise DataError(
                f"{where} has {len(row)} values, line {lines[0]} has {len(rows[0])}",
                hint="shorter series are filled up with NaN in this format",
            )
        rows.append(row)
        labels.append(_label(fields[0], where))
        lines.append(number)
    if unequal:
        rows = cut(rows, lambda i: f"{path}: line {lines[i]}")
    return together([row[None] for row in rows]), np.array(labels)


def _field(where: str, i: int) -> str:
    return f"{where}, field {i + 2}"


def _label(field: str, where: str) -> str:
    """The text of a label; of a whole number its shortest: "1", not "1.0000000e+00"."""
    label = field.strip()
    if not label or label.lower() == "nan":
        raise DataError(f"{where}, field 1: the label is missing", hint="one label per series")
    try:
        number = float("" if "_" in label else label)  # which Python would overlook
    except ValueError:
        return label
    return str(int(number)) if number.is_integer() else label
