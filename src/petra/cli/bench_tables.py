"""What `petra bench` prints: one row of measurements for each file or runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from petra.core.measurement import Measurement


def conditions(threads: int, batch: int, throughput_batch: int) -> str:
    return f"{threads} thread(s); latency at batch {batch}, throughput at batch {throughput_batch}"


def table_of(first: Sequence[str], *, ratio: bool, quality: str = "") -> Table:
    """Titles for `cells`; `quality` is the metric's name where there is one."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in first:
        table.add_column(title, overflow="fold")
    ratios = ["latency ratio"] if ratio else []
    for title in (
        *([quality] if quality else []),
        "latency",
        "95th pct.",
        *ratios,
        "throughput",
        "memory",
        "size",
    ):
        table.add_column(title, justify="right", no_wrap=True)
    return table


def cells(metrics: Mapping[str, Measurement]) -> list[str]:
    from petra.report.numbers_text import interval, value

    ratio = metrics.get("latency_ratio")
    within = f" ({interval(ratio)})" if ratio and ratio.stderr else ""
    return [
        *([value("quality", metrics["quality"].mean)] if "quality" in metrics else []),
        *(value(m, metrics[m].mean) for m in ("latency_ms", "latency_p95_ms")),
        *([f"{ratio.mean:.2f}x{within}"] if ratio else []),
        *(value(m, metrics[m].mean) for m in ("throughput", "memory_mb", "size_bytes")),
    ]
