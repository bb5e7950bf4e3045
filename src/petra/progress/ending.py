"""What came of a study, in a few lines: the same for whoever ran it, in Python or on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from petra.front import Front
from petra.progress.follow import Progress
from petra.progress.words import counted
from petra.report.notebook import picks_in_words
from petra.report.numbers_text import duration
from petra.report.record import StudyRecord


def verdict(front: Front) -> str:
    """One sentence on a front that has nothing but the untouched model; '' where there is more."""
    if front.baseline is None or any(t.number for t in front.members):
        return ""
    if len(front.trials) <= 1:
        taken = max(front.baseline.finished_at, front.baseline.seconds)
        return (
            "No trial has finished: the untouched model alone took"
            f" {duration(taken)}; give the search more time."
        )
    if not front.members:
        return ""  # why it is empty is said where it is shown
    return "Nothing that was tried beats the untouched model; give the search more time."


def ending(directory: Path) -> Iterator[str]:
    """What came of the study in `directory`, line by line, for who called it from Python."""
    record = StudyRecord.load(directory, whole=False)
    front = record.front()
    if not front.members:
        yield f"The front is empty: {front.why_empty()}."
    elif any(t.number for t in front.members):
        models = counted(len(front.members), "model")
        tested = "confirmed on the test split" if any(t.test for t in front.members) else ""
        yield f"front: {models}{', ' if tested else ''}{tested}"
        yield from (f"  {line}" for line in picks_in_words(front))
        yield "study.front shows it; study.front.pick('knee').export('model/') takes a model out"
    if said := verdict(front):
        yield said


def conclude(progress: Progress, directory: Path) -> None:
    """Say what came of a study."""
    for line in ending(directory):
        progress.came_out(line)
