"""Gather the recorded benchmark: real candidates of real studies, with nothing left out.

    python benchmarks/gather_recordings.py digits ecg5000 --work DIR

For each workload several studies run, one worker and one thread, on an otherwise idle machine:
recipes and space-filling draws, then what searches propose. Savings are off, so that every
candidate that works has every metric. Ctrl-C stops it, and the same command goes on. What is
written is `recorded/<workload>.jsonl.gz`: a line that describes the studies, then one for each
evaluation.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from recorded_workloads import LONGEST, WORKLOADS

import petra
from petra.core.notes import StepBegan, WorkerNote
from petra.core.trial import Proposal, Trial
from petra.listener import Clock
from petra.measure.host import describe_host

HERE = Path(__file__).parent / "recorded"


@dataclass(frozen=True)
class Source:
    """One study: where its proposals come from, and how many trials it has."""

    name: str
    trials: int
    search: dict[str, Any]
    seed: int
    recipes: bool = False


SOURCES = (
    Source("uniform", 210, {"name": "uniform"}, 1, recipes=True),
    Source("surrogate", 150, {"name": "surrogate"}, 2, recipes=True),
    Source("evolution", 90, {"name": "evolution"}, 3),
    Source("asha", 70, {"name": "asha", "proposals": "uniform", "zero_shot": False}, 4),
)


class Recorder:
    """A listener that writes each trial down as it ends, with the seconds of its phases."""

    def __init__(self, source: str, file: Path) -> None:
        self.source, self.file = source, file
        self._phases: dict[str, float] = {}
        self._name, self._since = "", 0.0

    def _enter(self, name: str) -> None:
        now = time.perf_counter()
        if self._name:
            spent = self._phases.get(self._name, 0.0) + now - self._since
            self._phases[self._name] = spent
        self._name, self._since = name, now

    def started(self, baseline: Trial, clock: Clock) -> None:
        if not self.file.exists():
            self._write(baseline, {})

    def stage(self, proposal: Proposal, note: WorkerNote) -> None:
        if isinstance(note, StepBegan):
            self._enter(note.name)

    def finished(self, trial: Trial, clock: Clock) -> None:
        self._enter("")
        self._write(trial, self._phases)
        self._phases = {}
        print(f"{self.source} {trial.number}: {trial.status} {trial.seconds:.1f} s", flush=True)

    def message(self, text: str) -> None:
        print(f"{self.source}: {text}", flush=True)

    def _write(self, trial: Trial, phases: dict[str, float]) -> None:
        row = {
            "source": self.source,
            "number": trial.number,
            "moves": trial.origin.moves,
            "pipeline": trial.pipeline.as_list(),
            "fidelity": asdict(trial.fidelity),
            "status": str(trial.status),
            "failure": asdict(trial.failure) if trial.failure else None,
            "metrics": {
                name: [float(f"{m.mean:.6g}"), float(f"{m.stderr:.3g}"), m.n]
                for name, m in sorted(trial.metrics.items())
            },
            "cached": sum(stage.cached for stage in trial.trace),
            "seconds": round(trial.seconds, 2),
            "phases": {name: round(s, 2) for name, s in phases.items()},
        }
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")


def run(workload: str, source: Source, work: Path) -> Path:
    """One study, to its end; the file of its rows."""
    place = work / workload / source.name
    file = place.with_suffix(".jsonl")
    place.parent.mkdir(parents=True, exist_ok=True)
    model, task = WORKLOADS[workload]()
    petra.compress(
        model,
        task,
        workdir=place,
        search=source.search,
        seed=source.seed,
        space={"recipes": source.recipes, "max_length": LONGEST},
        budget={"trials": source.trials, "stagnation": 0},
        prior={"shipped": False},
        savings=dict.fromkeys(("screen", "quality_gate", "learning_curves", "timing"), False),
        limits={"workers": 1, "build_threads": 1, "trial_time": 120},
        listener=Recorder(source.name, file),
    )
    return file


def packed(workload: str, work: Path) -> Iterator[str]:
    """The lines of the committed file, of the studies that there are."""
    files = [(source, work / workload / f"{source.name}.jsonl") for source in SOURCES]
    there = [(source, file) for source, file in files if file.exists()]
    about = {
        "workload": workload,
        "date": datetime.date.today().isoformat(),
        "host": describe_host(),
        "versions": {"petra": petra.__version__, "torch": str(torch.__version__)},
        "sources": [asdict(source) for source, _ in there],
    }
    yield json.dumps(about)
    for _, file in there:
        yield from file.read_text().splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="+", choices=WORKLOADS)
    parser.add_argument("--work", type=Path, required=True, help="where the studies are kept")
    options = parser.parse_args()
    with suppress(KeyboardInterrupt):  # what there is by then is written all the same
        for source in SOURCES:
            for workload in options.workloads:
                run(workload, source, options.work)
    for workload in options.workloads:
        text = "\n".join(packed(workload, options.work)) + "\n"
        with gzip.GzipFile(HERE / f"{workload}.jsonl.gz", "wb", mtime=0) as out:
            out.write(text.encode())


if __name__ == "__main__":
    main()
