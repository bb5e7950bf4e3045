"""A comparison of studies as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from petra.core.metric import Metric
from petra.core.trial import Trial
from petra.report.comparable import differences
from petra.report.comparison import Compared, Comparison, Rival, Side, volume_at
from petra.report.numbers_text import NONE, duration, value, with_error
from petra.report.outcomes import failure_counts
from petra.report.pipeline_text import count_statuses, pipeline_in_words

_SHOWN = 3  # rivals named in a row


def comparison_view(found: Comparison) -> RenderableType:
    """All of a comparison: what differs, both fronts in one table, progress and failures."""
    names = [side.name for side in found.sides]
    parts: list[RenderableType] = [Text("What differs", style="bold")]
    rows = differences([side.record for side in found.sides])
    parts.append(settings_table(names, rows) if rows else Text("Nothing that petra knows of."))
    parts += [Text("\nFronts", style="bold"), members_table(found), Text(), pipelines_table(found)]
    parts += [Text(), *(Text(line) for line in verdicts(found))]
    parts += [Text("\nProgress", style="bold"), progress_table(found)]
    parts.append(Text(_reference(found), style="dim"))
    if any(t.failed for side in found.sides for t in side.record.trials):
        parts += [Text("\nFailures", style="bold"), failures_table(found)]
    return Group(*parts)


def _table(*titles: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in titles:
        table.add_column(
            Text(title), overflow="fold", justify="right" if title in right else "left"
        )
    return table


def settings_table(names: Sequence[str], rows: Mapping[str, Sequence[str]]) -> Table:
    table = _table("", *names)
    for name, values in rows.items():
        table.add_row(*map(Text, (name, *values)))
    return table


def members_table(found: Comparison) -> Table:
    """Members of all fronts, each study's by size, and which of other studies' beat them."""
    axes = [found.sides[0].record.catalogue[a.metric] for a in found.axes.objectives]
    titles = [axis_title(found, axis) for axis in axes]
    table = _table("study", "#", *titles, "beaten by", right=("#", *titles))
    for side in found.sides:
        of = found.of(side.name)
        for i, one in enumerate(of):
            cells = [figure_text(found, one.trial, axis) for axis in axes]
            table.add_row(
                *map(Text, (side.name, str(one.trial.number), *cells)),
                Text(rivals_text(one), style="red" if one.beaten_by else "yellow"),
                end_section=i + 1 == len(of),
            )
    return table


def pipelines_table(found: Comparison) -> Table:
    """How the members were made, in words."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column()
    grid.add_column(justify="right")
    grid.add_column(overflow="fold")
    for one in found.members:
        if one.trial.number:
            words = pipeline_in_words(one.trial.pipeline)
            grid.add_row(*map(Text, (one.study, str(one.trial.number), words)))
    return grid


def axis_title(found: Comparison, axis: Metric) -> str:
    if not axis.sampled:
        return axis.column
    return f"{axis.title} ({'test' if found.tested else 'val'})"


def figure_text(found: Comparison, trial: Trial, axis: Metric) -> str:
    known = found.figure(trial, axis.name)
    if known is None:
        return NONE
    return with_error(known) if axis.sampled else value(axis, known.mean)


def rivals_text(one: Compared) -> str:
    """'second 12, second 14'; in brackets where it is within the errors."""
    if one.beaten_by:
        return _listed(one.beaten_by)
    return f"(perhaps {_listed(one.no_better_than)})" if one.no_better_than else ""


def _listed(rivals: Sequence[Rival]) -> str:
    more = len(rivals) - _SHOWN
    return ", ".join(map(str, rivals[:_SHOWN])) + (f" and {more} more" if more > 0 else "")


def verdicts(found: Comparison) -> Iterator[str]:
    """What the table says, a sentence for each study, and by what it was judged."""
    known = found.sides[0].record.catalogue
    judged = [known.label(a.metric) for a in found.axes.objectives]
    if not judged:
        yield "Nothing can be compared:"
    for side in found.sides if judged else ():
        yield _verdict(side, found.of(side.name))
    for name, reason in found.axes.left_out.items():
        yield f"{known.label(name)} is not compared: {reason}."
    yield from (f"Note: {note}." for note in found.axes.notes)
    if judged:
        yield (
            f"Judged by {', '.join(judged)}. Beaten: certainly worse in one of these (beyond the"
            " 95% interval of both measurements) and better in none; perhaps: better in one, by"
            " less than the errors tell."
        )


def _verdict(side: Side, members: Sequence[Compared]) -> str:
    if not members:
        return f"{side.name}: the front is empty: {side.front.why_empty()}"
    beaten = sum(bool(m.beaten_by) for m in members)
    perhaps = sum(bool(m.no_better_than) and not m.beaten_by for m in members)
    said = f"{side.name}: of {len(members)} models, {beaten} beaten by another study's"
    return said + (f", {perhaps} more perhaps" if perhaps else "")


def progress_table(found: Comparison) -> Table:
    """How far each search was after the same time and the same number of results."""
    seconds, results = checkpoints(found)
    late = [f"at {duration(s)}" for s in seconds] + [f"at {n} trials" for n in results]
    titles = ["trials", "searched", "hypervolume", *late]
    table = _table("study", *titles, right=titles)
    for side in found.sides:
        curve = found.curves.get(side.name, ())
        volumes = [volume_at(curve)] if curve else []
        volumes += [volume_at(curve, seconds=s) for s in seconds if curve]
        volumes += [volume_at(curve, results=n) for n in results if curve]
        cells = [f"{v:.4f}" for v in volumes] or [NONE] * (1 + len(late))
        trials = sum(t.number > 0 for t in side.record.trials)
        table.add_row(*map(Text, (side.name, str(trials), duration(side.record.elapsed_s), *cells)))
    return table


def checkpoints(found: Comparison) -> tuple[list[float], list[int]]:
    """Seconds and numbers of results at which all studies were still searching, or ended."""
    ends = [curve[-1] for curve in found.curves.values() if curve]
    if not ends:
        return [], []
    shortest, fewest = min(e.seconds for e in ends), min(e.results for e in ends)
    seconds = [shortest / 4, shortest / 2, shortest] if shortest > 0 else []
    return seconds, sorted({n for n in (fewest // 2, fewest) if n > 0})


def _reference(found: Comparison) -> str:
    if not found.curves:
        return ""
    known = found.sides[0].record.catalogue
    point = ", ".join(f"{known.label(n)} {value(known[n], v)}" for n, v in found.reference.items())
    demanded = "; ".join(map(str, found.shared)) or "none"
    return (
        f"Hypervolume: what the models found dominate, up to {point}, with"
        f" {found.sides[0].name}'s untouched model as the unit; by the validation split, as the"
        f" searches saw it. Constraints that all share, and count: {demanded}."
    )


def failures_table(found: Comparison) -> Table:
    """How trials ended, and the most frequent failures."""
    table = _table("study", "trials", "most frequent failures")
    for side in found.sides:
        counts = failure_counts(side.record.trials)[:_SHOWN]
        said = "; ".join(f"{count} in {stage} ({kind})" for (stage, kind), count, _ in counts)
        table.add_row(*map(Text, (side.name, count_statuses(side.record.trials), said or "none")))
    return table
