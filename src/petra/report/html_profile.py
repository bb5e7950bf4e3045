"""The page's section about members of the front: why slower, why float, what this cost."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from petra.core.trial import Trial
from petra.explaining.cost import cost_of
from petra.explaining.explain import explained
from petra.explaining.match import Order, orders_of
from petra.explaining.measuring import kept_profile
from petra.explaining.record import Cost, Explanation
from petra.explaining.words import change_in_words, ms, slowest, times
from petra.report import page
from petra.report.page import esc
from petra.report.pipeline_text import pipeline_in_words
from petra.report.record import StudyRecord

SHOWN = 15
"""Rows of a member's tables; `petra explain DIR NUMBER --all` shows every one."""


def profile_section(record: StudyRecord) -> str:
    """For every member of the front, and folded up: where its time goes as it was profiled last,
    what is in float and why, what it cost, and advice; '' for an empty front.

    Runs nothing: what was not profiled has the command that does. Reads the kept profiles and the
    digests of the members' files.
    """
    front = record.front()
    if not front.members:
        return ""
    labels = front.labels()
    orders = orders_of(record.trials)
    parts = [_member(record, t, labels.get(t.number, []), orders) for t in front.members]
    about = (
        "<p>Times are from the runtime's own profile, taken apart from what decided about the"
        " candidates; shares are of all operators together.</p>"
    )
    return f"<h2>Why slower, why float, at what cost</h2>{about}{''.join(parts)}"


def _member(
    record: StudyRecord, trial: Trial, picks: Sequence[str], orders: Sequence[Order]
) -> str:
    tags = "".join(f" <span class=tag>{esc(name)}</span>" for name in picks)
    title = f"Trial {trial.number}: {pipeline_in_words(trial.pipeline)}"
    measured = kept_profile(record.directory, trial)
    if measured is None:
        command = f"petra explain {shlex.quote(str(record.directory))} {trial.number}"
        body = (
            f"<p>Not profiled yet: <code>{esc(command)}</code></p>{_cost(cost_of(trial, None, ()))}"
        )
    else:
        body = explanation_html(explained(title, measured, trial, orders))
    return (
        f"<details id=explain-{trial.number}><summary>{esc(title)}{tags}</summary>{body}</details>"
    )


def explanation_html(found: Explanation) -> str:
    """An explanation as HTML, all text of it escaped."""
    parts = [
        f"<p>{esc(' '.join(found.summary))}</p>",
        f"<p class=soft>Profiled by {esc(found.runtime)}.</p>",
        _operators(found),
        _layers(found),
        _floats(found),
        _cost(found.cost),
        _advice(found),
    ]
    return "".join(parts)


def _operators(found: Explanation) -> str:
    if not found.operators:
        return ""
    rows = [
        [
            esc(row.family),
            ms(row.ms),
            f"{row.share:.0%}",
            ms(row.base_ms),
            times(row.factor),
            esc(", ".join(row.kinds[:4]) or "none"),
        ]
        for row in found.operators[:SHOWN]
    ]
    head = ["operators for", "ms", "share", "untouched, ms", "times", "run as"]
    kinds = ("name", "", "", "", "", "text")
    return page.table(head, rows, caption="Time by operator in one call", classes=kinds)


def _layers(found: Explanation) -> str:
    rows = [
        [
            esc(row.label),
            ms(row.ms),
            f"{row.share or 0:.0%}",
            ms(row.base_ms),
            times(row.factor),
            esc(row.asked),
            esc(row.ran or "not said"),
        ]
        for row in slowest(found)[:SHOWN]
    ]
    if not rows:
        return ""
    head = ["layer", "ms", "share", "untouched, ms", "times", "in the file", "ran in"]
    caption = "Layers that take longest"
    if found.unmatched:
        caption += f"; {found.unmatched}"
    return page.table(head, rows, caption=caption, classes=("text", "", "", "", "", "name", "name"))


def _floats(found: Explanation) -> str:
    lines = [f"{row.label}, {row.share or 0:.0%}: {row.reason}" for row in found.floats[:SHOWN]]
    lines += [*found.notes[:SHOWN]]
    lines += [f"still runs inside: {text}" for text in found.unfused[:SHOWN]]
    return _listed("In float, and why", lines)


def _cost(cost: Cost) -> str:
    return _listed("What it cost", list(_cost_lines(cost)))


def _cost_lines(cost: Cost) -> Iterator[str]:
    for split, change in cost.quality:
        yield f"quality on the {split} split, same items: {change_in_words(change)}"
    if cost.train_s is not None:
        yield f"built in {cost.train_s:.1f} s"
    for stage, said in cost.stages:
        yield f"{stage}: {said}"
    for what, size, share in cost.tensors[:5]:
        yield f"{size:,} B, {share:.0%} of all tensors: {what}"


def _advice(found: Explanation) -> str:
    return _listed("Advice", [f"{one.text}. ({one.source})" for one in found.advice])


def _listed(title: str, lines: list[str]) -> str:
    if not lines:
        return ""
    return f"<h3>{esc(title)}</h3><ul>{''.join(f'<li>{esc(line)}</li>' for line in lines)}</ul>"
