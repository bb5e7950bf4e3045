"""Trying pipelines on architectures in worker processes, so that a crash or a hang is one cell, and
resumably.
"""

from __future__ import annotations

import argparse
import datetime
import json
import queue
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

from petra.core.pipeline import Pipeline
from petra.measure.host import describe_host
from petra.testing.coverage import (
    FAILS,
    OUTCOMES,
    Cell,
    attempt_in_worker,
    prepare_architecture,
)
from petra.workers.isolate import Worker, WorkerError

RESULTS = Path(__file__).parent / "results"
Job = tuple[str, Pipeline]


def options(description: str, journal: str) -> argparse.ArgumentParser:
    """What the scripts have in common."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--journal", type=Path, default=Path("runs") / journal, help="finished cells, a line each"
    )
    parser.add_argument(
        "--again", nargs="*", choices=OUTCOMES, default=[], help="run cells that ended so once more"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--time-limit", type=float, default=120.0, help="seconds for one cell")
    return parser


def run(jobs: Sequence[Job], given: argparse.Namespace) -> list[Cell]:
    """The cells of `jobs`, in their order: those in the journal as they are, the others run now and
    added to it.
    """
    known = _read(given.journal)
    finished = {key: cell for key, cell in known.items() if cell.outcome not in given.again}
    groups: dict[str, list[Pipeline]] = defaultdict(list)
    for architecture, pipeline in jobs:
        if (architecture, pipeline.key) not in finished:
            groups[architecture].append(pipeline)
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for architecture in groups:
        waiting.put(architecture)
    total, lock = sum(map(len, groups.values())), threading.Lock()
    given.journal.parent.mkdir(parents=True, exist_ok=True)
    count = 0

    def note(cell: Cell) -> None:
        nonlocal count
        with lock, given.journal.open("a") as out:
            count += 1
            finished[cell.key] = cell
            out.write(json.dumps(cell.as_dict()) + "\n")
            print(
                f"{count}/{total} {cell.architecture}: {cell.pipeline}: {cell.outcome}"
                f" {cell.reason} [{cell.seconds:.1f} s]",
                flush=True,
            )

    def work(slot: int) -> None:
        with Worker(given.journal.with_suffix(f".{slot}.log"), threads=1) as worker:
            while True:
                try:
                    architecture = waiting.get_nowait()
                except queue.Empty:
                    return
                worker.start(architecture, prepare_architecture)
                for pipeline in groups[architecture]:
                    note(_cell(worker, architecture, pipeline, given.time_limit))

    with ThreadPoolExecutor(given.processes) as pool:
        list(pool.map(work, range(given.processes)))
    return [finished[architecture, pipeline.key] for architecture, pipeline in jobs]


def _cell(worker: Worker, architecture: str, pipeline: Pipeline, limit_s: float) -> Cell:
    try:
        found = worker.call(attempt_in_worker, pipeline, time_limit_s=limit_s)
    except WorkerError as error:
        return Cell(architecture, pipeline, FAILS, f"worker: {error.message}")
    return Cell.from_dict(found)


def _read(journal: Path) -> dict[tuple[str, str], Cell]:
    """Finished cells by key, the last of each."""
    lines = journal.read_text().splitlines() if journal.is_file() else []
    return {cell.key: cell for cell in map(Cell.from_dict, map(json.loads, lines))}


# -- writing ---------------------------------------------------------------------------------------


def header(title: str, cells: Iterable[Cell]) -> list[str]:
    """Title, host, date, versions, command."""
    host = describe_host()
    versions: dict[str, str] = {**host["versions"]}  # type: ignore[dict-item]
    versions["transformers"] = metadata.version("transformers")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    )
    return [
        f"# {title}",
        "",
        f"- date: {datetime.date.today().isoformat()}, commit {commit.stdout.strip()}",
        f"- host: {host['cpu']}, {host['cores']} cores",
        f"- versions: Python {host['python']}, "
        + ", ".join(f"{k} {v}" for k, v in versions.items() if v and k != "petra"),
        (
            f"- command: `python benchmarks/{Path(sys.argv[0]).name}`;"
            f" {sum(c.seconds for c in cells) / 60:.0f} minutes of one core"
        ),
        "",
    ]


def reasons(cells: Iterable[Cell], label: Callable[[Cell], str]) -> list[str]:
    """A list of why cells did not act, or what is to be said of those that did, with where. Equal
    ones are one.
    """
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for cell in cells:
        if cell.reason:
            found[cell.outcome, cell.reason.replace("|", "\\|")].append(label(cell))
    order = sorted(found, key=lambda key: (OUTCOMES.index(key[0]), -len(found[key]), key[1]))
    return [f"- *{outcome}*, {', '.join(found[outcome, why])}: {why}" for outcome, why in order]


def write(name: str, lines: Sequence[str], cells: Iterable[Cell]) -> None:
    """``results/NAME.md`` and ``results/NAME.json``."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n")
    (RESULTS / f"{name}.json").write_text(
        "[\n" + ",\n".join(json.dumps(c.as_dict()) for c in cells) + "\n]\n"
    )
