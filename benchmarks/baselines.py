"""Whether the reference models are sound: what each reaches on its test split, beside what others
report.

    python benchmarks/baselines.py [--only NAME ...] [--workers N]

Every workload whose weights are trained on first use is trained, `--workers` of them at a time, or
found where it is kept (`PETRA_CACHE`); `PETRA_BASELINE_DEVICE=cuda` trains on a GPU. Writes
``results/baselines.md`` as they come; what was written before of others stays.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from host import heading

from petra.core.errors import PetraError
from petra.core.whole import write_whole
from petra.workloads.kept import kept_score
from petra.workloads.places import missing, training_device
from petra.workloads.table import PROBLEMS, WORKLOADS
from petra.workloads.workload import Workload

RESULTS = Path(__file__).parent / "results"


def train(name: str) -> dict[str, Any]:
    """The row of a workload: its score on the test split, or why there is none."""
    workload: Workload = WORKLOADS.get(name)
    if absent := missing(workload.files):
        return {"failure": f"data missing: {', '.join(absent)}"}
    began = time.perf_counter()
    try:
        workload()
        score = kept_score(workload.kept, workload.metric, workload.args)
    except (PetraError, RuntimeError) as error:
        return {"failure": f"{type(error).__name__}: {error}".splitlines()[0]}
    if score is None:
        return {"failure": "nothing is kept of it"}
    return {
        "mean": score.mean,
        "stderr": score.stderr,
        "items": score.n,
        "seconds": round(time.perf_counter() - began),
        "device": training_device(),
    }


def line(name: str, row: dict[str, Any]) -> str:
    workload: Workload = WORKLOADS.get(name)
    if "failure" in row:
        return f"| {name} | {workload.about} | {workload.metric} | | | {row['failure']} | |"
    published, mean = workload.published, row["mean"]
    place = published.place(mean, maximize=workload.maximize) if published else ""
    return (
        f"| {name} | {workload.about} | {workload.metric} | {mean:.4f} ± {row['stderr']:.4f}"
        f" | {published or ''} | {place} | {row['device']}, {row['seconds']} s |"
    )


def write(rows: dict[str, dict[str, Any]], command: str) -> None:
    head = heading("Reference models on their test splits", command)
    found = [WORKLOADS.get(name).published for name in rows]
    lines = [
        *head,
        "- quality ± one standard error over items, of one training with fixed settings; within,"
        " better or worse: than what the named sources report (`petra workloads NAME`)",
        "- seconds: of training and judging, beside other trainings; next to none: it was kept",
        "",
        "| workload | model | quality | here | published | | trained on |",
        "|---|---|---|---|---|---|---|",
        *(line(name, rows[name]) for name in sorted(rows)),
        "",
        f"{sum(p is not None for p in found)} of {len(rows)} have published figures.",
    ]
    write_whole(RESULTS / "baselines.md", "\n".join(lines) + "\n")
    write_whole(RESULTS / "baselines.json", json.dumps(rows, indent=1, sort_keys=True) + "\n")


def main() -> None:
    names = [w.name for w in PROBLEMS if w.kept]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=names, choices=names, metavar="NAME")
    parser.add_argument("--workers", type=int, default=1, help="trained side by side")
    options = parser.parse_args()
    kept = RESULTS / "baselines.json"
    rows = json.loads(kept.read_text()) if kept.is_file() else {}
    device = f"PETRA_BASELINE_DEVICE={training_device()} " if training_device() != "cpu" else ""
    command = f"{device}python benchmarks/baselines.py --workers {options.workers}"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(train, name): name for name in options.only}
        for done in as_completed(running):
            rows[running[done]] = done.result()
            print(line(running[done], rows[running[done]]), flush=True)
            write(rows, command)


if __name__ == "__main__":
    main()
