"""Where a candidate's seconds go: ``python benchmarks/candidate_seconds.py [--against SOURCE]``.

Runs the same candidates for the digits workload, one worker, and writes the seconds of each phase
down as ``benchmarks/results/candidate-seconds.md``. With ``--against`` (the ``src`` of another
checkout), the two versions take turns in one run, round by round, so that a machine that drifts
slows both. Wall-clock seconds, and CPU seconds of all processes, which other load disturbs less.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve()
RESULTS = HERE.parent / "results"
PIPELINES: tuple[tuple[tuple[str, dict[str, object]], ...], ...] = (
    (("quantize.static", {}),),
    (("quantize.dynamic", {}),),
    (("prune.structured", {"ratio": 0.3}), ("distill", {"epochs": 3})),
    (
        ("prune.structured", {"ratio": 0.5}),
        ("distill", {"epochs": 6}),
        ("quantize.static", {}),
    ),
    (("lowrank.svd", {}), ("tune", {"epochs": 3}), ("quantize.static", {})),
    (("prune.structured", {"ratio": 0.6}), ("repair.reconstruct", {}), ("quantize.static", {})),
    (("prune.unstructured", {"sparsity": 0.5}),),
    (("quantize.qat", {"epochs": 3}),),
)
PHASES = ("stages", "export", "measure", "compare and score", "between candidates")
Seconds = dict[str, tuple[float, float]]  # phase -> wall-clock and CPU seconds


class CpuClock:
    """CPU seconds of this process and of all below it, those that have ended included: looked at
    ten times a second, because what is killed takes its own figure with it. Looking is not counted.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, float], float] = {}
        self._looking = threading.Lock()
        self._own = 0.0
        threading.Thread(target=self._keep_looking, daemon=True).start()

    def _keep_looking(self) -> None:
        while True:
            self.seconds()
            self._own = time.thread_time()
            time.sleep(0.1)

    def seconds(self) -> float:
        import psutil

        with self._looking:
            me = psutil.Process()
            for process in (me, *me.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    times = process.cpu_times()
                    key = process.pid, process.create_time()
                    self._seen[key] = times.user + times.system
            return sum(self._seen.values()) - self._own


class Phases:
    """A listener that adds up what passes between two notes, for trials after the untouched
    model.
    """

    def __init__(self) -> None:
        self._cpu = CpuClock()
        self.seconds: Seconds = dict.fromkeys(PHASES, (0.0, 0.0))
        self.trials: list[tuple[str, str]] = []
        self._phase, self._since = "", (0.0, 0.0)

    def _enter(self, phase: str) -> None:
        now = time.perf_counter(), self._cpu.seconds()
        if self._phase:
            wall, cpu = self.seconds[self._phase]
            self.seconds[self._phase] = (
                wall + now[0] - self._since[0],
                cpu + now[1] - self._since[1],
            )
        self._phase, self._since = phase, now

    def started(self, baseline: object, clock: object) -> None:
        self._enter("between candidates")

    def stage(self, proposal: object, note: object) -> None:
        name = getattr(note, "name", None)
        if not self._phase or name is None:
            return
        known = {"export": "export", "measure": "measure", "compare": "compare and score"}
        self._enter(known.get(name, self._phase if name == "score" else "stages"))

    def finished(self, trial: object, clock: object) -> None:
        status, pipeline = getattr(trial, "status", ""), getattr(trial, "pipeline", "")
        self.trials.append((str(status), str(pipeline)))
        self._enter("between candidates")

    def message(self, text: str) -> None:
        if text.startswith("stopped"):
            self._enter("")


def one_run() -> None:
    """All candidates once, with the version of petra that is imported here; JSON to stdout."""
    import petra
    from petra.workloads.digits import digits

    model, task = digits(epochs=4)
    initial = [[{"stage": kind, "params": params} for kind, params in p] for p in PIPELINES]
    phases = Phases()
    with tempfile.TemporaryDirectory() as place:
        petra.compress(
            model,
            task,
            workdir=Path(place) / "study",
            space={"initial": initial},
            budget={"trials": len(PIPELINES)},
            listener=phases,
        )
    print(json.dumps({"seconds": phases.seconds, "trials": phases.trials}))


def run_version(source: Path) -> tuple[Seconds, list[tuple[str, str]]]:
    """`one_run` in a process that imports petra from `source`."""
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(HERE), "--one"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return found["seconds"], found["trials"]


def medians(runs: Sequence[Seconds]) -> dict[str, tuple[float, float]]:
    """Seconds a candidate by phase, each the median over runs."""
    found = {}
    for phase in PHASES:
        wall = statistics.median(run[phase][0] for run in runs) / len(PIPELINES)
        cpu = statistics.median(run[phase][1] for run in runs) / len(PIPELINES)
        found[phase] = (wall, cpu)
    return found


def table(versions: Mapping[str, Mapping[str, tuple[float, float]]]) -> str:
    """Phases in rows; wall-clock and CPU seconds of each version in columns."""
    heads = [f"{name}, {kind}" for name in versions for kind in ("wall s", "CPU s")]
    lines = ["| phase | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for phase in PHASES:
        cells = [f"{s:.2f}" for found in versions.values() for s in found[phase]]
        lines.append(f"| {phase} | " + " | ".join(cells) + " |")
    sums = [
        f"**{sum(found[phase][i] for phase in PHASES):.2f}**"
        for found in versions.values()
        for i in (0, 1)
    ]
    lines.append("| **a candidate** | " + " | ".join(sums) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="the src directory of another checkout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "candidate-seconds.md")
    parser.add_argument("--conditions", default="", help="what else ran meanwhile, say")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one_run()
        return
    versions = {"here": HERE.parents[1] / "src"}
    if options.against:
        versions = {"before": options.against.resolve(), **versions}
    runs: dict[str, list[Seconds]] = {name: [] for name in versions}
    trials: dict[str, list[tuple[str, str]]] = {}
    for i in range(options.rounds):
        order = list(versions.items())
        for name, source in order if i % 2 == 0 else reversed(order):
            seconds, trials[name] = run_version(source)
            runs[name].append(seconds)
    text = [
        "# Seconds of a digits candidate, by phase",
        "",
        f"{datetime.date.today()}, {platform.processor() or platform.machine()},"
        f" {os.cpu_count()} cores, {options.rounds} rounds of {len(PIPELINES)} candidates in turns,"
        f" one worker. {options.conditions}".rstrip(),
        "",
        table({name: medians(found) for name, found in runs.items()}),
        "",
        "How the candidates ended:",
        "",
        *(f"- {name}: {', '.join(status for status, _ in t)}" for name, t in trials.items()),
        "",
    ]
    options.out.write_text("\n".join(text))
    print("\n".join(text))


if __name__ == "__main__":
    main()
