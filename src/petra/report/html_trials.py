"""The page's sections about single trials: the table of all, and how the members of the front were
made. The page's script makes more of both: it sorts, filters, and opens a trial that is asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from petra.front import Front
from petra.report import page
from petra.report.entries import Entry, Figure, Step, export_command
from petra.report.glossary import origin_doc, term
from petra.report.metric_text import metric_words
from petra.report.numbers_text import duration
from petra.report.page import esc
from petra.report.trial_data import trials_json
from petra.report.verdicts import Kind

MOST_ROWS = 300  # trials in the table of a page without a script
MOST_DETAILS = 60  # members of the front whose making is told without one
_TERM = {Kind.FRONT: "front"}  # the glossary's word, where it is not the kind's own


def trials_section(front: Front, entries: Sequence[Entry], directory: Path) -> str:
    """All trials: a table, what filters it, and the data of both for the script."""
    if not entries:
        return ""
    shown, told = _first(entries, MOST_ROWS), {entry.number for entry in _told(entries)}
    metrics = [front.catalogue[o.metric] for o in front.objectives]
    head = ["trial", "outcome", *(esc(metric_words(m)) for m in metrics), "made by", "took"]
    caption = "All trials. Figures are on the validation split, costs of members as confirmed."
    table = page.table(
        [*head, "pipeline"],
        [_row(entry, anchored=entry.number not in told) for entry in shown],
        caption=caption,
        classes=("", "text", *[""] * len(metrics), "words", "", "text"),
        name="trials",
    )
    left_out = len(entries) - len(shown)
    note = (
        f"<noscript><p>The first {len(shown)} of {len(entries)} trials, those on the front among"
        " them; with JavaScript the table has all, as has <code>petra show --all</code>."
        "</p></noscript>"
        if left_out
        else ""
    )
    data = page.data("trials-data", trials_json(entries, metrics, directory))
    return f"<h2>All trials</h2>{_said(entries)}{_filters(entries)}{table}{note}{data}"


def _said(entries: Sequence[Entry]) -> str:
    words = ", ".join(term(_TERM.get(kind, kind.value), kind.value) for kind in _counts(entries))
    return (
        f"<p>What became of each: {words}. A number leads to the trial's pipeline, what its stages"
        " did, and its figures.</p>"
    )


def _counts(entries: Sequence[Entry]) -> dict[Kind, int]:
    """How many there are of each kind, in the order of `Kind`."""
    found = Counter(entry.verdict.kind for entry in entries)
    return {kind: found[kind] for kind in Kind if found[kind]}


def _filters(entries: Sequence[Entry]) -> str:
    """What the script shows and listens to; of no use without."""
    kinds = list(Kind)
    boxes = "".join(
        f"<label><input type=checkbox name=kind value={kinds.index(kind)} checked>"
        f" {esc(kind.value)} ({count})</label>"
        for kind, count in _counts(entries).items()
    )
    return (
        "<form id=filter hidden><fieldset><legend>Show</legend>"
        f"{boxes}</fieldset><label class=search>Find <input type=search id=search"
        ' autocomplete=off placeholder="a stage, a layer type, a reason"></label>'
        "<output id=count for=search></output></form>"
    )


def _first(entries: Sequence[Entry], most: int) -> Sequence[Entry]:
    """Members of the front, and the first others, in order of number."""
    if len(entries) <= most:
        return entries
    members = [e for e in entries if e.verdict.kind in (Kind.FRONT, Kind.UNTOUCHED)][:most]
    others = [e for e in entries if e.verdict.kind not in (Kind.FRONT, Kind.UNTOUCHED)]
    return sorted([*members, *others[: most - len(members)]], key=lambda e: e.number)


def _row(entry: Entry, *, anchored: bool) -> list[str]:
    """The cells of a trial. One that is `anchored` is where links to it lead without a script."""
    picks = "".join(f" <span class=tag>{esc(name)}</span>" for name in entry.picks)
    reason = f"<br><small>{esc(entry.reason)}</small>" if entry.reason else ""
    number = page.trial_link(entry.number)
    if anchored:
        number = f'<span id="trial-{entry.number}">{number}</span>'
    return [
        number,
        f"<b>{esc(entry.verdict.kind.value)}</b>{picks}{reason}",
        *map(esc, entry.value_texts),
        esc(entry.origin),
        esc(duration(entry.trial.seconds)),
        esc(entry.words),
    ]


# ---- members -------------------------------------------------------------------------------------


def members_section(entries: Sequence[Entry], directory: Path) -> str:
    """How the members of the front were made, each with its figures and the command to export it;
    '' where there is none.
    """
    told = _told(entries)
    if not told:
        return ""
    base = next((e.figures() for e in entries if not e.number), [])
    details = "".join(_member(entry, base, directory) for entry in told)
    left_out = len(_members(entries)) - len(told)
    more = f"<p>{left_out} more are in the table above.</p>" if left_out else ""
    return f"<h2>How they were made</h2><div class=members>{details}</div>{more}"


def _members(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.verdict.kind is Kind.FRONT]


def _told(entries: Sequence[Entry]) -> list[Entry]:
    """Members of the front in order of number, those that have names and the first others."""
    members = _members(entries)
    chosen = sorted(members, key=lambda e: (not e.picks, e.number))[:MOST_DETAILS]
    return sorted(chosen, key=lambda e: e.number)


def _member(entry: Entry, base: Sequence[Figure], directory: Path) -> str:
    steps = "".join(f"<li>{_step(step)}</li>" for step in entry.steps())
    picks = "".join(f"<span class=tag>{esc(name)}</span> " for name in entry.picks)
    trial = entry.trial
    moves = "; ".join(f"{m}: {doc}" for m in trial.origin.moves if (doc := origin_doc(m)))
    made = f"Made by {entry.origin}{f' ({moves})' if moves else ''}"
    return (
        f'<details id="trial-{entry.number}"><summary>{picks}trial {entry.number}:'
        f" {esc(entry.words)}</summary><ol>{steps}</ol>{_figures(entry, base)}"
        f"<p class=soft>{esc(made)}; took {esc(duration(trial.seconds))};"
        f" <code>{esc(trial.artifact)}</code></p>"
        f"<pre><code>{esc(export_command(directory))}{entry.number}</code></pre></details>"
    )


def _step(step: Step) -> str:
    params = ", ".join(f"{k} = {v}" for k, v in step.params.items()) or "no parameters"
    lines = [f"<b>{esc(step.kind)}</b>", f"<small>{esc(params)}</small>"]
    lines += [esc(step.trace)] if step.trace else []
    lines += [f"<small>left alone: {esc(layer)}</small>" for layer in step.skipped]
    return "<br>".join(lines)


def _figures(entry: Entry, base: Sequence[Figure]) -> str:
    untouched = {figure.name: figure.value for figure in base}
    rows = [
        [esc(f.name), esc(f.value), esc(untouched.get(f.name, "")), esc(f.search)]
        for f in entry.figures()
    ]
    head = ["figure", f"trial {entry.number}", "untouched model", "in the search"]
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    caption = f"Figures of trial {entry.number}, in brackets their 95% intervals"
    return page.table(head, rows, caption=caption, classes=("name",))
