"""How the trials of a study ended: those that failed, by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from petra.core.text import first_line, printable
from petra.core.trial import Trial
from petra.front import Front


def failures_view(front: Front) -> Table:
    """Failures by stage and reason, the most frequent first, each with an example."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title, justify in (
        ("trials", "right"),
        ("stage", "left"),
        ("reason", "left"),
        ("for example", "left"),
    ):
        table.add_column(title, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for (stage, kind), count, example in failure_counts(front.trials):
        assert example.failure is not None
        message = f"trial {example.number}: {first_line(example.failure.message)}"
        table.add_row(*(Text(printable(cell)) for cell in (count, stage, kind, message)))
    return table


def failure_counts(trials: Sequence[Trial]) -> list[tuple[tuple[str, str], int, Trial]]:
    """((stage, kind of error), how many, first such trial), most frequent first; what was screened
    has not failed.
    """
    failed = [(t.failure.stage, t.failure.kind, t) for t in trials if t.failed and t.failure]
    counts = Counter((stage, kind) for stage, kind, _ in failed)
    first = {(stage, kind): t for stage, kind, t in reversed(failed)}
    return [(key, count, first[key]) for key, count in counts.most_common()]
