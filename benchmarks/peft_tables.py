"""The tables of `peft.py`: means over seeds on items that no search has seen."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from peft_problem import Row, Rows, Setting

from petra.recipes.peft import USUAL

BEST, SMALL = "searched", "searched, at most 1%"
FOUND = "{name}, found on {task}"


def mean(rows: Sequence[Row]) -> float:
    return statistics.fmean(r.test for r in rows)


def cell(rows: Sequence[Row]) -> str:
    """Mean and standard deviation over seeds, in percent."""
    if not rows:
        return ""
    spread = statistics.stdev(r.test for r in rows) if len(rows) > 1 else 0.0
    return f"{100 * mean(rows):.1f} ± {100 * spread:.1f}"


def average(rows: Rows, name: str, tasks: Sequence[str]) -> float | None:
    """Over the tasks; None where one of them lacks the row."""
    found = [rows.of(task, name) for task in tasks]
    return statistics.fmean(map(mean, found)) if found and all(found) else None


def line(rows: Rows, name: str, tasks: Sequence[str]) -> str:
    found = {task: rows.of(task, name) for task in tasks}
    shares = [r.share for each in found.values() for r in each]
    share = f"{100 * statistics.fmean(shares):.2f}%" if shares else ""
    total = average(rows, name, tasks)
    cells = [name, share, *(cell(found[task]) for task in tasks)]
    return "| " + " | ".join([*cells, "" if total is None else f"{100 * total:.1f}"]) + " |"


def table(rows: Rows, names: Sequence[str], tasks: Sequence[str]) -> Iterator[str]:
    yield "| | parameters | " + " | ".join(tasks) + " | average |"
    yield "|---|" + "---|" * (len(tasks) + 2)
    yield from (line(rows, n, tasks) for n in names if any(rows.of(t, n) for t in tasks))


def verdict(rows: Rows, tasks: Sequence[str]) -> Iterator[str]:
    """How the search's picks of at most 1% compare on average with all weights trained, and with
    the best way of one module."""
    ours, full = average(rows, SMALL, tasks), average(rows, "full fine-tuning", tasks)
    single = {n: average(rows, n, tasks) for n, usual in USUAL.items() if usual.single}
    known = {n: v for n, v in single.items() if v is not None}
    if ours is None or full is None or not known:
        yield "No average yet: a task lacks rows."
        return
    best = max(known, key=lambda n: known[n])
    yield (
        f"On average, what was searched at most 1% of the parameters has {100 * ours:.1f}, full"
        f" fine-tuning {100 * full:.1f} ({100 * (ours - full):+.1f}), the best single module"
        f" ({best}) {100 * known[best]:.1f} ({100 * (ours - known[best]):+.1f})."
    )


def volumes_table(path: Path) -> Iterator[str]:
    """Hypervolume by searcher and number of evaluations, mean and standard error over seeds."""
    if not path.exists():
        return
    known = json.loads(path.read_text())
    at = known["at"]
    yield "## Searchers, replayed"
    yield ""
    yield known["about"]
    yield ""
    yield "| searcher | " + " | ".join(f"after {n}" for n in at) + " |"
    yield "|---|" + "---|" * len(at)
    for name, runs in known["volumes"].items():
        columns = list(zip(*runs, strict=True))
        cells = []
        for column in columns:
            error = statistics.stdev(column) / len(column) ** 0.5 if len(column) > 1 else 0.0
            cells.append(f"{statistics.fmean(column):.4f} ± {error:.4f}")
        yield f"| {name} | " + " | ".join(cells) + " |"
    yield ""


def markdown(
    rows: Rows,
    head: Sequence[str],
    setting: Setting,
    *,
    tasks: Sequence[str],
    trials: int,
    volumes: Path,
) -> str:
    """All of ``results/peft.md``."""
    source = tasks[0] if tasks else ""
    here = [BEST, SMALL]
    found = [FOUND.format(name=name, task=source) for name in here]
    items = "all" if setting.items is None else f"at most {setting.items:,}"
    seeds = {r.seed for r in rows.rows.values()}
    lines = [
        *head,
        f"- {items} training items, {setting.epochs} epochs, batches of 32, AdamW at {setting.lr:g}"
        f" (all weights: {setting.full_lr:g}); searches of {trials} trials, half of them random",
        f"- {len(seeds)} seeds: head, modules and order; mean ± standard deviation in percent on"
        " the official development set (MRPC: test set), which no search saw; accuracy, CoLA:"
        " Matthews correlation, STS-B: Pearson correlation",
        "- parameters: trained ones without the head, as a share of the model's 22.7 M",
        "",
        *table(rows, [*USUAL, *here], tasks),
        "",
        *verdict(rows, tasks),
        "",
        f"## Transfer: found on {source}, trained and judged elsewhere",
        "",
        *table(rows, [*here, *found], [t for t in tasks if t != source]),
        "",
        *volumes_table(volumes),
    ]
    return "\n".join(lines).rstrip() + "\n"
