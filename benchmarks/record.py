"""Write a finished study down as a result: ``python benchmarks/record.py STUDY_DIR NAME --command
'...'``.

Leaves ``benchmarks/results/NAME.md`` (host, date, command, the front with test-split figures, how
the search went) and ``NAME.json`` (every trial).
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
from collections import Counter
from pathlib import Path

import yaml

from petra.core.trial import Trial
from petra.report.study_front import StudyFront
from petra.store.store import Store

RESULTS = Path(__file__).parent / "results"


def row(trial: Trial, baseline: Trial) -> str:
    """One line of the front's table."""
    test, val = trial.test or trial.metrics, trial.metrics
    ratio = test["latency_ratio"]
    low, high = ratio.interval
    cells = [
        str(trial.number),
        (
            f"{trial.origin.name} of {trial.origin.parent}"
            if trial.origin.parent is not None
            else trial.origin.name
        ),
        str(trial.pipeline),
        f"{100 * val['quality'].mean:.2f}",
        (
            f"{100 * test['quality'].mean:.2f} ± {100 * test['quality'].stderr:.2f}"
            if trial.test
            else ""
        ),
        (
            f"{100 * (test['quality'].mean - baseline.test['quality'].mean):+.2f}"
            if trial.test and baseline.test
            else ""
        ),
        f"{val['size_bytes'].mean / 1000:.1f}",
        f"{val['size_bytes'].mean / baseline.metrics['size_bytes'].mean:.3f}",
        f"{test['latency_ms'].mean:.3f}",
        f"{ratio.mean:.3f} ({low:.3f}-{high:.3f})",
        f"{test['throughput_ratio'].mean:.2f}" if "throughput_ratio" in test else "-",
        f"{val['macs'].mean / 1e6:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("name")
    parser.add_argument("--command", required=True)
    parser.add_argument(
        "--conditions", default="", help="what a reader must know: what else ran meanwhile, say"
    )
    options = parser.parse_args()
    with Store.open(options.study, write=False) as store:
        trials, host, config = store.trials(), store.host, store.config
        facts = {name: store.note(name) for name in ("stop_reason", "eager_latency_ms")} | {
            "seconds": store.elapsed()
        }
    front = StudyFront.load(options.study)
    baseline = trials[0]
    trials_by_number = {t.number: t for t in trials}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    )
    kinds = Counter(str(t.status) for t in trials if t.number)
    failures = Counter(f"{t.failure.stage}: {t.failure.kind}" for t in trials if t.failure)
    sets = ", ".join(name for name, has in host["instruction_sets"].items() if has)
    lines = [
        f"# {options.name}",
        "",
        f"- date: {datetime.date.today().isoformat()}, commit {commit.stdout.strip()}",
        (
            f"- host: {host['cpu']}, {host['cores']} cores, {host['memory_gb']} GB, {sets};"
            f" {host['os']}"
        ),
        f"- versions: Python {host['python']}, "
        + ", ".join(f"{k} {v}" for k, v in host["versions"].items() if v and k != "petra"),
        f"- command: `{options.command}`",
        (
            f"- search: {len(trials) - 1} trials"
            f" ({', '.join(f'{n} {k}' for k, n in sorted(kinds.items()))}) in"
            f" {facts['seconds'] / 60:.1f} minutes, confirmation included; stopped:"
            f" {facts['stop_reason']}"
        ),
        f"- failures: {', '.join(f'{n} x {k}' for k, n in failures.items()) or 'none'}",
        *([f"- conditions: {options.conditions}"] if options.conditions else []),
        f"- untouched model in eager PyTorch: {facts['eager_latency_ms']:.3f} ms",
        "",
        "Quality in percent (validation; test ± one standard error; difference to the",
        "untouched model on the test split), size in kB (1,000 bytes) and relative, latency",
        "at the target's batch and threads (ratio to the untouched model on the same runtime",
        "with its 95% interval), throughput ratio, millions of MACs. Pipelines are given by",
        "the study file, drawn, or made by the search by a move from an earlier trial.",
        "",
        (
            "| # | from | pipeline | val | test | diff | kB | size | ms | latency ratio |"
            " throughput | MMACs |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        *(
            row(trials_by_number[n], baseline)
            for n in dict.fromkeys([0, *(m.number for m in front.members)])
        ),
        "",
        "```yaml",
        yaml.safe_dump(config, sort_keys=False).strip(),
        "```",
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{options.name}.md").write_text("\n".join(lines) + "\n")
    rows = [
        {
            "number": t.number,
            "from": [t.origin.name, t.origin.parent],
            "pipeline": t.pipeline.as_list(),
            "status": f"{t.status}: {t.failure.message}" if t.failure else str(t.status),
            "val": {k: [m.mean, m.stderr] for k, m in t.metrics.items()},
            "test": {k: [m.mean, m.stderr] for k, m in t.test.items()},
            "seconds": round(t.seconds, 1),
        }
        for t in trials
    ]
    (RESULTS / f"{options.name}.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
