"""The page's sections about candidates by groups: screened, failed, and by what made them."""

from __future__ import annotations

from petra.core.trial import Trial, TrialStatus
from petra.front import Front
from petra.report import history, page
from petra.report.glossary import origin_doc, term
from petra.report.metric_text import renamed
from petra.report.outcomes import explanation, failure_counts, screening
from petra.report.page import esc
from petra.report.pipeline_text import pipeline_in_words


def screened_section(front: Front) -> str:
    """What was left early, by what for, each with an example; '' where nothing was."""
    found = screening(front)
    if not str(found):
        return ""
    first = {
        t.failure.kind: t
        for t in reversed(front.trials)
        if t.failure and t.status is TrialStatus.SCREENED
    }
    rows = [
        [
            esc(kind),
            str(found.left.get(kind, 0)),
            esc(renamed(front.catalogue, f"trial {trial.number}: {_message(trial)}")),
            esc(pipeline_in_words(trial.pipeline)),
        ]
        for kind, trial in first.items()
    ]
    head = ["left for", "trials", "for example", "its pipeline"]
    caption = "Candidates that were not trained, exported or timed in full, and why"
    table = page.table(head, rows, caption=caption, classes=("name", "", "text", "text"))
    return f"<h2>Screened</h2><p>{esc(str(found))}</p>{table if rows else ''}"


def _message(trial: Trial) -> str:
    return trial.failure.message if trial.failure else ""


def explained_section(front: Front) -> str:
    """Candidates whose error rose much, and where that comes from; '' where there are none."""
    found = [(t, words) for t in front.trials if (words := explanation(t))]
    if not found:
        return ""
    rows = [
        [str(t.number), esc(t.status.value), esc(words), esc(pipeline_in_words(t.pipeline))]
        for t, words in found
    ]
    head = ["trial", "status", "where its error comes from", "its pipeline"]
    caption = "Candidates whose error rose much: layers of their PyTorch models against those of"
    caption += " the untouched one, on the validation items whose predictions moved most"
    table = page.table(head, rows, caption=caption, classes=("", "name", "text", "text"))
    return f"<h2>Explained</h2>{table}"


def failures_section(front: Front) -> str:
    counts = failure_counts(front.trials)
    if not counts:
        return "<h2>Failures</h2><p>No trial failed.</p>"
    rows = []
    for (stage, kind), count, example in counts:
        shown = f"trial {example.number}: {_message(example)}"
        rows.append(
            [
                esc(stage),
                esc(kind),
                str(count),
                esc(shown),
                esc(pipeline_in_words(example.pipeline)),
            ]
        )
    head = ["stage", "reason", "trials", "for example", "its pipeline"]
    failed = sum(count for _, count, _ in counts)
    caption = (
        f"{failed} of {sum(t.number > 0 for t in front.trials)} trials, by the stage they failed in"
        " and the reason"
    )
    table = page.table(head, rows, caption=caption, classes=("name", "name", "", "text", "text"))
    return f"<h2>Failures</h2>{table}"


def moves_section(reached: history.Reached) -> str:
    """What the search made its pipelines by, and what came of it; '' before its first trial."""
    counts = history.move_counts(reached)
    if not counts:
        return ""
    rows = [
        [esc(move), esc(origin_doc(move)), str(tried), str(reached)]
        for move, tried, reached in counts
    ]
    said = (
        f"<p>Where pipelines come from: {term('move', 'moves')} change an earlier pipeline, others"
        f" are drawn or given. Which of them pay shows in how often their trials raised the"
        f" {term('hypervolume')}; a trial made by two moves counts for both.</p>"
    )
    table = page.table(
        ["made by", "what it does", "trials", "raised the hypervolume"],
        rows,
        caption="Measured trials by what made them, the most frequent first",
        classes=("name", "text"),
    )
    return f"<h2>Where pipelines come from</h2>{said}{table}"
