"""Hypervolume against evaluations: petra's searchers beside those of other libraries, on problems
that cost nothing.

    python benchmarks/search_quality.py --seeds 20 --budget 200 --out results/search-synthetic
    python benchmarks/search_quality.py --recorded --seeds 20 --out results/search-recorded

`--recorded` takes the recorded workloads instead of synthetic problems (`recorded_problems.py`),
and says in seconds, too, how long each search takes.

Every searcher proposes through petra's own stream, from all results but the last `--lag` - 1;
SMS-EMOA alone sees every result first. Runs are kept in `--keep`, so that a comparison goes on
where it was cut off; tables and figure are of all that are there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from host import heading
from plotly.subplots import make_subplots
from scipy.stats import wilcoxon
from search_problems import Case, cases
from search_runs import SETTINGS, SMS_EMOA, Kept, Run, curves

HERE = Path(__file__).parent
SLOW = {"GPSampler"}  # seconds a proposal: fewer seeds, and half the budget
MARKS = (5, 10, 20, 50, 100, 200)
SHARE = 0.95  # of the best searcher's final hypervolume, to which evaluations are counted
COLOURS = ("#1f77b4", "#d62728", "#7f7f7f", "#2ca02c", "#9467bd", "#8c564b", "#e377c2")


def reached(volumes: np.ndarray, wanted: float) -> np.ndarray:
    """Evaluations (runs,) until each of curves (runs, budget) has the hypervolume; inf: never."""
    there = volumes >= wanted
    return np.where(there.any(axis=1), there.argmax(axis=1) + 1.0, np.inf)


def evaluations(counts: np.ndarray, budget: int) -> str:
    """The median count of evaluations in words."""
    middle = float(np.median(counts))
    return f"{middle:.0f}" if np.isfinite(middle) else f"> {budget}"


def seconds(runs: Sequence[Run], wanted: float) -> str:
    """The median seconds of trials until a run has the hypervolume, in words."""
    found = [
        next((s for s, v in zip(r.seconds, r.volumes, strict=True) if v >= wanted), float("inf"))
        for r in runs
    ]
    middle = float(np.median(found))
    return (
        f"{middle:.0f}"
        if np.isfinite(middle)
        else f"> {np.median([r.seconds[-1] for r in runs]):.0f}"
    )


def chance(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Two-sided p of Wilcoxon's signed-rank test on runs paired by seed, with the winner's sign."""
    count = min(len(ours), len(theirs))
    apart = ours[:count] - theirs[:count]
    if count < 5 or not apart.any():
        return ""
    sign = "+" if np.median(apart) > 0 else "-"
    return f"{sign} {wilcoxon(apart).pvalue:.1g}"


def table(case: Case, made: dict[str, list[Run]], whole: dict[str, int], first: str) -> list[str]:
    """The lines of one case: mean hypervolumes with standard errors, and how `first` compares."""
    found = {name: curves(runs, whole[name]) for name, runs in made.items()}
    costs = {name: float(np.mean([r.cost_s for r in runs])) for name, runs in made.items()}
    budget = max(c.shape[1] for c in found.values())
    marks = [m for m in MARKS if m <= budget]
    goal = SHARE * max(float(c[:, -1].mean()) for c in found.values())
    lines = [
        f"## {case.name}",
        "",
        f"Attainable: {case.best:.3f}." if case.best else "",
        f"The goal is {goal:.3f}, {SHARE:.0%} of the best mean at the end.",
        "",
        f"| searcher | seeds | {' | '.join(map(str, marks))} | to the goal |"
        + (" seconds to the goal |" if case.timed else "")
        + f" CPU ms a proposal | {first} against it at {' / '.join(map(str, marks))} |",
        "|---" * (len(marks) + 5 + case.timed) + "|",
    ]
    for name, runs in found.items():
        cells = []
        for m in marks:
            if m > runs.shape[1]:
                cells.append("")
                continue
            at = runs[:, m - 1]
            cells.append(f"{at.mean():.3f} ± {at.std(ddof=1) / len(at) ** 0.5:.3f}")
        tests = [
            chance(found[first][:, m - 1], runs[:, m - 1])
            for m in marks
            if name != first and m <= runs.shape[1]
        ]
        lines.append(
            f"| {name} | {len(runs)} | {' | '.join(cells)} |"
            f" {evaluations(reached(runs, goal), runs.shape[1])} |"
            + (f" {seconds(made[name], goal)} |" if case.timed else "")
            + f" {1e3 * costs[name]:.0f} | {' / '.join(tests)} |"
        )
    return [*lines, ""]


def figure(found: dict[str, dict[str, np.ndarray]]) -> go.Figure:
    """Mean curves with a band of one standard error, a panel for each case."""
    names = list(dict.fromkeys(name for runs in found.values() for name in runs))
    panels = make_subplots(rows=(len(found) + 1) // 2, cols=2, subplot_titles=list(found))
    for i, runs in enumerate(found.values()):
        place = {"row": i // 2 + 1, "col": i % 2 + 1}
        for name, volumes in runs.items():
            colour = COLOURS[names.index(name) % len(COLOURS)]
            at = np.arange(1, volumes.shape[1] + 1)
            mean, error = volumes.mean(axis=0), volumes.std(axis=0) / len(volumes) ** 0.5
            panels.add_scatter(
                x=np.concatenate([at, at[::-1]]),
                y=np.concatenate([mean + error, (mean - error)[::-1]]),
                fill="toself", fillcolor=colour, opacity=0.15, line={"width": 0},
                hoverinfo="skip", showlegend=False, **place,
            )  # fmt: skip
            panels.add_scatter(
                x=at, y=mean, name=name, line={"color": colour}, legendgroup=name,
                showlegend=i == 0 or (name == SMS_EMOA and i == list(found).index("ZDT1")), **place,
            )  # fmt: skip
    panels.update_layout(
        title="Hypervolume against evaluations", height=340 * ((len(found) + 1) // 2)
    )
    return panels


def recorded_cases() -> Iterator[Case]:
    """The recorded workloads, with models that need torch, and half a minute to be made."""
    from recorded_problems import recorded_case
    from recorded_workloads import WORKLOADS

    yield from map(recorded_case, WORKLOADS)


def compare(names: Sequence[str], options: argparse.Namespace) -> list[str]:
    """Run what is missing, write the figure, and give the lines of the tables."""
    kept = Kept(options.keep)
    found: dict[str, dict[str, np.ndarray]] = {}
    lines: list[str] = []
    for case in recorded_cases() if options.recorded else cases():
        if options.cases and case.name not in options.cases:
            continue
        made, lengths = {}, {}
        whole = min(options.budget, kept.longest(case, names[0]) or options.budget)
        for name in names:
            if name == SMS_EMOA and not case.best:
                continue
            slow = name in SLOW
            budget = whole // 2 if slow else whole
            for seed in range(options.slow_seeds if slow else options.seeds):
                kept.make(case, name, seed, budget, options.lag)
            if done := kept.of(case, name, budget):
                made[name], lengths[name] = done, budget
            print(case.name, name, flush=True)
        found[case.name] = {name: curves(runs, lengths[name]) for name, runs in made.items()}
        lines += table(case, made, lengths, names[0])
    figure(found).write_html(options.out.with_suffix(".html"), include_plotlyjs="cdn")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="runs to make, unless they are kept")
    parser.add_argument("--slow-seeds", type=int, default=3, help=f"of {', '.join(SLOW)}")
    parser.add_argument("--budget", type=int, default=200, help="evaluations")
    parser.add_argument("--recorded", action="store_true", help="the recorded workloads")
    parser.add_argument("--lag", type=int, default=4)
    parser.add_argument("--cases", nargs="*", default=[])
    parser.add_argument("--searchers", nargs="*", default=[*SETTINGS, SMS_EMOA])
    parser.add_argument("--keep", type=Path, default=Path("search-runs.jsonl"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "search-synthetic")
    options = parser.parse_args()
    lines = compare(options.searchers, options)
    command = " ".join(["python benchmarks/search_quality.py", *sys.argv[1:]])
    head = heading("Searchers on problems that cost nothing", command)
    head += [
        f"- every proposal is made from all results but the last {options.lag - 1}, SMS-EMOA's (20"
        " parents) from all; mean hypervolume after so many evaluations, with one standard error",
        f"- last column: + where {options.searchers[0]} is ahead in the median of runs paired by"
        " seed, and the two-sided p of Wilcoxon's signed-rank test",
    ]
    options.out.with_suffix(".md").write_text("\n".join([*head, "", *lines]) + "\n")


if __name__ == "__main__":
    main()
