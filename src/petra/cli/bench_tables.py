"""What `petra bench` prints: one row of measurements for each file or runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from petra.core.measurement import Measurement
    from petra.core.metric import Metric


def conditions(threads: int, batch: int, throughput_batch: int) -> str:
    return f"{threads} thread(s); latency at batch {batch}, throughput at batch {throughput_batch}"


def table_of(first: Sequence[str], *, ratio: bool, quality: str = "") -> Table:
    """Titles for `cells`; `quality` is the metric's name where there is one."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in first:
        table.add_column(title, overflow="fold")
    titles = [m.column for m in _shown() if ratio or m.form != "ratio"]
    for title in (*([quality] if quality else []), *titles):
        table.add_column(title, justify="right", no_wrap=True)
    return table


def cells(metrics: Mapping[str, Measurement]) -> list[str]:
    """The quality where it was measured, then each cost; a ratio only where there is one."""
    from petra.core.metric import QUALITY
    from petra.report.numbers_text import value

    found = [value(QUALITY, metrics[QUALITY].mean)] if QUALITY in metrics else []
    return found + [_cell(m, metrics[m.name]) for m in _shown() if m.name in metrics]


def _cell(metric: Metric, m: Measurement) -> str:
    from petra.report.numbers_text import interval, value

    within = f" ({interval(m)})" if metric.form == "ratio" and m.stderr else ""
    return f"{value(metric, m.mean)}{within}"


def _shown() -> list[Metric]:
    from petra.core.metric import Catalogue

    return [metric for metric in Catalogue().costs() if metric.shown.bench]
