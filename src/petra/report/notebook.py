"""What is seen of a study, a front and its members where Python shows them: one line in a console,
a small table in a notebook.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from petra.core.cards import card, esc, styled
from petra.core.errors import PetraError
from petra.core.metric import QUALITY
from petra.core.paired import score_change
from petra.core.text import first_line
from petra.core.trial import Trial
from petra.front import Front, figures
from petra.report.html_front import front_table
from petra.report.numbers_text import change, difference, value_of, with_error
from petra.report.pipeline_text import all_told_apart, count_statuses, pipeline_in_words
from petra.report.record import StudyRecord

_LONGEST = 200  # characters of a reason


def study_line(directory: Path) -> str:
    """A study in a line: where it is, how its trials ended, what is on its front. Never raises."""
    try:
        record = StudyRecord.load(directory, whole=False)
        return f"Study({str(directory)!r}: {', '.join(_said(record, record.front()))})"
    except PetraError as error:
        return f"Study({str(directory)!r}: {first_line(error.message)[:_LONGEST]})"


def study_card(directory: Path) -> str:
    """The same for a notebook, with the front."""
    try:
        record = StudyRecord.load(directory, whole=False)
    except PetraError as error:
        return card(f"Study {directory}", [error.message], (), {})
    front = record.front()
    title = f"<p><b>Study {esc(directory)}</b>: {esc(', '.join(_said(record, front)))}</p>"
    return styled(title + (front_table(front) if front.baseline else ""))


def _said(record: StudyRecord, front: Front) -> list[str]:
    tried = max(0, len(record.trials) - 1)
    if not record.trials:
        return ["no trials yet"]
    words = [f"{tried} trial{'' if tried == 1 else 's'}"]
    words += [f"({count_statuses(record.trials)})"] if tried else []
    on = len(front.members)
    models = f"{on} model{'' if on == 1 else 's'} on the front"
    reason = record.stop_reason[:_LONGEST]
    return [" ".join(words), models, reason or "not finished"]


def front_card(front: Front) -> str:
    """A front for a notebook."""
    return styled(front_table(front))


def member_line(front: Front, trial: Trial) -> str:
    """A member of a front in a line: its pipeline, quality and costs."""
    words = ", ".join(f"{name} {cells[0]}" for name, cells in _figures(front, trial).items())
    return f"Member({trial.number}: {pipeline_in_words(trial.pipeline)}; {words})"


def member_card(front: Front, trial: Trial) -> str:
    """The same for a notebook, with what changed against the untouched model."""
    labels = front.labels().get(trial.number, [])
    title = f"Trial {trial.number}" + (f" ({', '.join(labels)})" if labels else "")
    lines = [pipeline_in_words(trial.pipeline), trial.artifact]
    return card(title, lines, ("", "", "change"), _figures(front, trial))


def _figures(front: Front, trial: Trial) -> dict[str, Sequence[str]]:
    """The quality, on the test split where it was read, and the costs of every table: value, and
    change against the untouched model.
    """
    base = front.baseline or trial
    split = "test" if trial.test else "validation"
    mine, old = (trial.test, base.test) if trial.test else (trial.metrics, base.metrics)
    rows: dict[str, Sequence[str]] = {}
    if QUALITY in mine:
        moved = None if trial is base else score_change(mine, old, QUALITY)
        told = [with_error(mine[QUALITY]), difference(moved) if moved else ""]
        rows[f"{front.metric} ({split})"] = told
    for metric in front.catalogue.costs():
        found, before = figures(trial).get(metric.name), figures(base).get(metric.name)
        if metric.shown.terminal == 0 and found is not None:
            alone = metric.form == "ratio" or before is None or trial is base
            moved_by = "" if alone or before is None else change(found.mean, before.mean)
            rows[metric.column] = [value_of(metric, found), moved_by]
    return rows


def picks_in_words(front: Front) -> list[str]:
    """Members that a name of `PICKS` stands for, one line each: 'smallest, knee: trial 4, ...'."""
    names = all_told_apart(t.pipeline for t in front.members)
    labels = front.labels()
    return [
        f"{', '.join(labels[t.number])}: trial {t.number}, "
        + ", ".join(
            f"{name} {cells[0]}" + (f" ({cells[1]})" if cells[1] else "")
            for name, cells in _figures(front, t).items()
        )
        + f": {names[t.pipeline]}"
        for t in front.members
        if t.number in labels
    ]
