"""An explanation as text for a terminal or a notebook's cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from petra.core.measurement import Measurement

if TYPE_CHECKING:
    from petra.explaining.record import Explanation, LayerRow

SHOWN = 12  # rows of a table


def in_words(found: Explanation, *, everything: bool = False) -> str:
    """Lines: the summary, time by operator, layers, what is in float and why, cost, advice. Of long
    tables the first rows, unless `everything`.
    """
    most = 10**6 if everything else SHOWN
    parts = [
        [f"{found.subject}, {found.runtime}", *(f"  {line}" for line in found.summary)],
        list(_operators(found, most)),
        list(_layers(found, most)),
        list(_floats(found, most)),
        list(_cost(found)),
        list(_advice(found)),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def ms(value: float | None) -> str:
    """Milliseconds with three digits; '-' for none."""
    return "-" if value is None else f"{value:.3g}" if value >= 0.0005 else "0"


def times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def change_in_words(change: Measurement) -> str:
    """'-0.0135 (95%: -0.0201 to -0.0069)'."""
    low, high = change.interval
    within = f" (95%: {low:+.4f} to {high:+.4f})" if change.stderr else ""
    return f"{change.mean:+.4f}{within}"


def columns(rows: Sequence[Sequence[str]], *, left: Sequence[int]) -> Iterator[str]:
    """Rows, the first one titles, in columns; those in `left` are flush left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = (
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield ("  " + "  ".join(cells)).rstrip()


def _operators(found: Explanation, most: int) -> Iterator[str]:
    if not found.operators:
        return
    yield "Time by operator, milliseconds of one call"
    rows = [["for", "ms", "share", "untouched", "times", "run as"]]
    for row in found.operators[:most]:
        cells = [row.family, ms(row.ms), f"{row.share:.0%}", ms(row.base_ms), times(row.factor)]
        rows.append([*cells, ", ".join(row.kinds[:3]) or "none"])
    yield from columns(rows, left=(0, 5))
    yield from _rest(len(found.operators) - most)


def slowest(found: Explanation) -> list[LayerRow]:
    """Layers with a time, the longest first."""
    timed = [row for row in found.layers if row.ms is not None]
    return sorted(timed, key=lambda row: (-(row.ms or 0.0), row.place))


def _layers(found: Explanation, most: int) -> Iterator[str]:
    layers = slowest(found)
    if not layers:
        return
    yield "Layers that take longest"
    rows = [["layer", "ms", "share", "untouched", "times", "in the file", "ran in"]]
    for row in layers[:most]:
        cells = [row.label, ms(row.ms), f"{row.share or 0:.0%}", ms(row.base_ms)]
        rows.append([*cells, times(row.factor), row.asked, row.ran or "not said"])
    yield from columns(rows, left=(0, 5, 6))
    yield from _rest(len(layers) - most)
    if found.unmatched:
        yield f"  {found.unmatched}"


def _floats(found: Explanation, most: int) -> Iterator[str]:
    if not (found.floats or found.unfused or found.notes):
        return
    yield "In float, and why"
    for row in found.floats[:most]:
        share = f", {row.share:.0%} of the time" if row.share is not None else ""
        yield f"  {row.label}{share}: {row.reason}"
    yield from _rest(len(found.floats) - most)
    for text in found.notes[:most]:
        yield f"  {text}"
    if found.unfused:
        yield "  quantize and dequantize operators that still run inside:"
        yield from (f"    {text}" for text in found.unfused[:most])
        yield from _rest(len(found.unfused) - most)


def _cost(found: Explanation) -> Iterator[str]:
    cost = found.cost
    if not (cost.quality or cost.stages or cost.tensors):
        return
    yield "What it cost"
    for split, change in cost.quality:
        yield f"  quality, {split} split, same items: {change_in_words(change)}"
    if cost.train_s is not None:
        yield f"  built in {cost.train_s:.1f} s"
    for stage, said in cost.stages:
        yield f"  {stage}: {said}"
    if cost.tensors:
        yield "  largest tensors:"
        for what, size, share in cost.tensors:
            yield f"    {size:>12,} B  {share:>4.0%}  {what}"


def _advice(found: Explanation) -> Iterator[str]:
    if not found.advice:
        return
    yield "Advice"
    for one in found.advice:
        yield f"  - {one.text}."
        yield f"    ({one.source})"


def _rest(count: int) -> Iterator[str]:
    if count > 0:
        yield f"  and {count} more: --all shows them"
