"""How the trials of a study ended: those that failed, by reason, and those that were left early."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from petra.core.text import first_line, printable
from petra.core.trial import EXPLAINED, Trial, TrialStatus
from petra.front import Front
from petra.report.numbers_text import duration
from petra.store.points import AUDITED, points_of
from petra.store.stored_trials import MEASURED, StoredTrials


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


def explanation(trial: Trial) -> str:
    """Where an error that rose much comes from, on one line; '' where nothing is said of it."""
    said = next((t.details[EXPLAINED] for t in trial.trace if EXPLAINED in t.details), None)
    words = said.get("words") if isinstance(said, Mapping) else None
    return printable(first_line(words)) if isinstance(words, str) else ""


def nearest_explained(front: Front) -> str:
    """Of the nearest miss of an empty front, why its error rose much; '' where it did not."""
    nearest = front.nearest()
    found = next((t for t in front.trials if nearest and t.number == nearest.number), None)
    words = explanation(found) if found else ""
    return f"trial {found.number}: {words}" if found and words else ""


@dataclass(frozen=True)
class Screening:
    """Trials that were left early, and how often that was wrong.

    `left` counts them by what for, `seconds` are what they took altogether. `audited` would have
    been left, but were evaluated in full; of those `wrong` are on the front. `others` is the median
    of seconds of those that were evaluated in full.
    """

    left: Mapping[str, int]
    seconds: float
    audited: int
    wrong: int
    others: float

    @property
    def saved_s(self) -> float:
        """Seconds that they would have taken besides, if each took as long as the median of those
        that were evaluated in full: of longer trainings more were left.
        """
        return max(0.0, sum(self.left.values()) * self.others - self.seconds)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "left": dict(self.left),
            "seconds": self.seconds,
            "audited": self.audited,
            "wrong": self.wrong,
            "saved_s": self.saved_s,
        }

    def __str__(self) -> str:
        """In words; '' where nothing was left or audited."""
        total = sum(self.left.values())
        if not total and not self.audited:
            return ""
        kinds = ", ".join(f"{count} by {kind}" for kind, count in self.left.items())
        text = f"{total} screened" + (f" ({kinds})" if total else "")
        if total and self.others:
            text += f", which saved about {duration(self.saved_s)}"
        if not self.audited:
            return f"{text}; none was audited."
        return (
            f"{text}; {self.audited} more were evaluated in full to check, of which {self.wrong}"
            f" ({self.wrong / self.audited:.0%}) should not have been screened."
        )


def screening(front: Front) -> Screening:
    """What was left early in a study, and how its front judges that."""
    known = front.trials
    points = known.points if isinstance(known, StoredTrials) else points_of(known)
    screened, measured = (
        np.array([status in which for status in points.statuses], dtype=bool)
        for which in ((TrialStatus.SCREENED.value,), MEASURED)
    )
    audited = np.array([kind == AUDITED for kind in points.left], dtype=bool)
    full = points.seconds[measured & points.full & (points.numbers > 0)]
    members = [trial.number for trial in front.members]
    kinds = Counter(kind for kind in points.left if kind and kind != AUDITED)
    return Screening(
        left=dict(kinds.most_common()),
        seconds=float(points.seconds[screened].sum()),
        audited=int(audited.sum()),
        wrong=int(np.isin(points.numbers[audited], members).sum()),
        others=float(np.median(full)) if len(full) else 0.0,
    )
