"""Metrics of plugins, taken of the files that ship."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from petra.core.errors import ExportError
from petra.core.measurement import LARGEST, Measurement
from petra.core.metric import METRICS
from petra.core.text import shown


def counted(files: Sequence[Path]) -> dict[str, Measurement]:
    """Metrics of plugins that are counted from the files that ship. Raises ExportError for what is
    no number.
    """
    found = {}
    for name, metric in METRICS.items():
        if metric.count is None:
            continue
        value: object = metric.count(files)
        if not isinstance(value, int | float) or not abs(value) <= LARGEST:
            raise ExportError(
                f"the metric {name} is {shown(value)}", hint="its `count` returns a finite number"
            )
        found[name] = Measurement(float(value), unit=metric.unit)
    return found
