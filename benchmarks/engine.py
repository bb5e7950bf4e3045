"""What petra itself costs beside the candidates: ``python benchmarks/engine.py``.

Searches the toy problem, so that a trial costs nothing, through searcher, schedule and store as a
study does, with the metrics and traces of a real one; then reads what was stored. Prints
milliseconds and seconds of this process on this machine: run it when nothing else does.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from host import heading

from petra.config import parse_config
from petra.core.measurement import Measurement
from petra.core.objective import Objective, named_objectives
from petra.core.pipeline import Pipeline
from petra.core.rng import generator
from petra.core.trial import SCREEN, Failure, Origin, Proposal, StageTrace, Trial, TrialStatus
from petra.report.html import write_report
from petra.report.plain import front_data
from petra.report.study_front import StudyFront
from petra.search.base import Problem
from petra.search.durations import Durations
from petra.search.schedule import Stream, VirtualSchedule
from petra.search.table import make_searcher
from petra.store.store import Store
from petra.testing.toy import toy_space, toy_trial

WINDOW = 100  # trials over which a time per trial is taken
FIVE = ("quality", "latency_ratio", "size_bytes", "memory_mb", "macs")


def trial_of(proposal: Proposal) -> Trial:
    """A toy trial with everything that a real one has."""
    trial = toy_trial(proposal)
    layers, thin = tuple(f"layer{i}.0.conv" for i in range(20)), {"fc": "too thin"}
    traces = tuple(StageTrace(s.kind, layers, thin, 9000, 8000, 1.0) for s in proposal.pipeline)
    if not trial.measured:
        return replace(trial, seconds=1.0, trace=traces)
    rng = generator(0, proposal.pipeline.key, "engine")
    ratio, size = trial.metrics["latency_ratio"], trial.metrics["size_bytes"]
    more = {
        "latency_ms": Measurement(0.42 * ratio.mean, 0.002, 400, "ms", "host"),
        "latency_p95_ms": Measurement(0.5 * ratio.mean, 0.0, 400, "ms", "host"),
        "throughput": Measurement(20_000 / ratio.mean, 100.0, 400, "items/s", "host"),
        "throughput_ratio": Measurement(1 / ratio.mean, 0.01, 20, "x", "host"),
        "params": Measurement(size.mean / 4, 0.0, 1, "", "host"),
        "macs": Measurement(1e6 * float(rng.uniform(0.2, 1.0)), 0.0, 1, "", "host"),
        "memory_mb": Measurement(10 + 20 * float(rng.random()), 0.0, 1, "MB", "host"),
        "train_s": Measurement(1.2, 0.0, 1, "s", "host"),
    }
    return replace(trial, metrics={**trial.metrics, **more}, trace=traces, seconds=1.0)


def baseline() -> Trial:
    return trial_of(Proposal(0, Pipeline(), Origin(("baseline",))))


def new_store(directory: Path) -> Store:
    config = {"workload": "digits", "objectives": ("quality", "latency", "size")}
    settings = parse_config({**config, "budget": {"trials": 10**6}, "workdir": str(directory)})
    store = Store.create(directory, settings.model_dump(mode="json"), {"id": "host"})
    store.set_note("task", {"metric": "accuracy", "maximize": True})
    return store


def search(
    directory: Path | None, trials: int, objectives: tuple[Objective, ...]
) -> Iterator[float]:
    """Seconds of each trial: asked for, stored before and after, told."""
    problem = Problem(toy_space(), objectives)
    searcher = make_searcher("evolution", {}, problem, baseline())
    stream = Stream(searcher, VirtualSchedule(4, Durations(problem.space)))
    store = None if directory is None else new_store(directory)
    if store:
        store.add(baseline())
    for number in range(1, trials + 1):
        began = time.perf_counter()
        proposal = stream.next()
        assert proposal is not None
        if store:
            store.propose(proposal)
        asked = time.perf_counter() - began
        trial = replace(trial_of(proposal), finished_at=float(number))
        began = time.perf_counter()
        if store:
            store.add(trial)
        stream.put(trial)
        yield asked + time.perf_counter() - began
    if store:
        store.close()


def fill(directory: Path, trials: int) -> None:
    """A study of many trials, drawn at random and stored at once."""
    problem = Problem(toy_space(), named_objectives(("quality", "latency_ratio", "size_bytes")))
    searcher = make_searcher("uniform", {}, problem, baseline())
    store = new_store(directory)
    with store._writing() as writing:  # one transaction instead of two per trial
        writing.trial(baseline())
        for number in range(1, trials + 1):
            proposal = searcher.ask()
            assert proposal is not None
            trial = replace(trial_of(proposal), finished_at=float(number))
            writing.trial(screened(trial) if number % 3 == 0 else trial)
    store.close()


def screened(trial: Trial) -> Trial:
    """The same, left for its costs before it was trained."""
    costs = {
        name: m for name, m in trial.metrics.items() if name in ("latency_ratio", "size_bytes")
    }
    failure = Failure(SCREEN, "dominated", "quality 0.91 at best, as others have at less")
    return replace(trial, status=TrialStatus.SCREENED, metrics=costs, failure=failure)


def timed(what: Callable[[], object]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000, help="of the search and the report")
    parser.add_argument("--many", type=int, default=100_000, help="whose front is read")
    given = parser.parse_args()
    three = named_objectives(("quality", "latency_ratio", "size_bytes"))
    print("\n".join(heading("Engine", "python benchmarks/engine.py")), end="\n\n")
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / "study"
        for name, where, objectives in (
            ("ask + store + tell, 3 objectives", directory, three),
            ("ask + tell, 5 objectives", None, named_objectives(FIVE)),
        ):
            seconds = list(search(where, given.trials, objectives))
            for end in sorted({given.trials // 10, given.trials}):
                window = seconds[max(0, end - WINDOW) : end]
                print(f"- {name}: {1e3 * sum(window) / len(window):.1f} ms at trial {end}")
        n = given.trials

        def load() -> None:
            with Store.open(directory, write=False) as store:
                store.trials()

        print(f"- loading {n} trials: {timed(load):.2f} s", flush=True)
        print(f"- report of {n} trials: {timed(lambda: write_report(directory)):.2f} s", flush=True)
        many = Path(place) / "many"
        fill(many, given.many)
        shown = timed(lambda: json.dumps(front_data(StudyFront.load(many))))
        print(f"- front and summary of {given.many} trials: {shown:.2f} s")


if __name__ == "__main__":
    main()
