"""How well a virtual schedule keeps workers busy, and what it costs the search: ``python
benchmarks/schedule_utilisation.py``.

Simulated, so the numbers do not depend on this machine: petra's own schedules with durations drawn
from lognormal distributions, predicted with an error; petra's own searchers on its toy problem; and
predicted seconds against those of recorded studies. Takes minutes; writes
``results/schedule-utilisation.md``.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from petra.core.pipeline import Pipeline
from petra.core.rng import generator
from petra.core.trial import Proposal, Trial, TrialStatus
from petra.methods.table import STAGES
from petra.search.durations import Durations, Rates
from petra.search.scaling import scale
from petra.search.schedule import Schedule, VirtualSchedule
from petra.search.table import make_searcher
from petra.space.space import Space
from petra.testing.search_suite import simulate
from petra.testing.toy import OBJECTIVES, toy_baseline, toy_problem, toy_trial

RESULTS = Path(__file__).parent / "results"
WORKERS = (2, 8, 64, 1000)
SPREADS = (0.5, 1.0)
ERROR = 0.3  # standard deviation of the logarithm of predicted over true seconds
STUDIES = (
    "cifar10-resnet20",
    "cifar10-resnet20-avx2",
    "cifar10-resnet56-by-hand",
    "cifar10-resnet56",
)
NOTHING = Pipeline()


class Predicted(Durations):
    """Durations that are given, by number."""

    def __init__(self, seconds: Sequence[float]) -> None:
        super().__init__(Space({}))
        self.seconds = seconds

    def predict(self, proposal: Proposal) -> float:
        return self.seconds[proposal.number]


class Barrier(Schedule):
    """Generations: the next one is proposed when all of the last one have finished."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._waiting: list[int] = []

    def due(self, number: int) -> Sequence[int]:
        return list(self._waiting) if (number - 1) % self.size == 0 else []

    def proposed(self, proposal: Proposal) -> None:
        self._waiting.append(proposal.number)

    def told(self, trial: Trial) -> None:
        self._waiting.remove(trial.number)


def utilisation(schedule: Schedule, workers: int, seconds: Sequence[float]) -> float:
    """Share of the workers' time that is worked, from the beginning until the last proposal is
    made. `seconds` are the true ones of trials 1, 2, ...
    """
    trials = len(seconds) - 1
    finished: set[int] = set()
    number, begun, clock = 1, 1, 0.0
    busy: list[tuple[float, int]] = []
    worked, due = 0.0, schedule.due(1)
    while True:
        while number <= trials and finished.issuperset(due):
            for n in due:
                schedule.told(Trial(n, NOTHING, TrialStatus.FAILED))
            schedule.proposed(Proposal(number, NOTHING))
            number += 1
            due = schedule.due(number)
        while begun < number and len(busy) < workers:
            heapq.heappush(busy, (clock + seconds[begun], begun))
            worked += seconds[begun]
            begun += 1
        if number > trials:  # what is left of those that run is not counted
            return (worked - sum(end - clock for end, _ in busy)) / (workers * clock)
        clock, ended = heapq.heappop(busy)
        finished.add(ended)


def drawn(
    workers: int, spread: float, *, error: float = ERROR, screened: float = 0.0
) -> tuple[list[float], list[float]]:
    """True and predicted seconds of trials from 1; a share of `screened` takes a twentieth of
    them, which nobody knows before.
    """
    trials = 1 + max(1000, 20 * workers)
    rng = generator(0, "durations", workers, str(spread))
    predicted = np.exp(spread * rng.normal(size=trials))
    true = predicted * np.exp(error * rng.normal(size=trials))
    true[rng.random(trials) < screened] *= 0.05
    return true.tolist(), predicted.tolist()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def of_schedules() -> Iterator[str]:
    """Virtual schedules beside a fixed lag and generations."""
    head = ["log spread", "schedule", *(f"{w:,} workers" for w in WORKERS)]
    rows = []
    for spread in SPREADS:
        found: dict[str, list[str]] = {}
        for workers in WORKERS:
            true, predicted = drawn(workers, spread)
            flat = [1.0] * len(true)
            for name, schedule in {
                "virtual, V = W": VirtualSchedule(workers, Predicted(predicted)),
                "virtual, V = 2W": VirtualSchedule(2 * workers, Predicted(predicted)),
                "fixed lag of W": VirtualSchedule(workers, Predicted(flat)),
                "fixed lag of 2W": VirtualSchedule(2 * workers, Predicted(flat)),
                "generations of 8": Barrier(8),
                "generations of 2W": Barrier(2 * workers),
            }.items():
                share = utilisation(schedule, workers, true)
                found.setdefault(name, []).append(f"{share:.3f}" if share < 0.1 else f"{share:.2f}")
        rows += [[f"{spread:g}", name, *values] for name, values in found.items()]
    yield from table(head, rows)


def of_errors() -> Iterator[str]:
    """What wrong predictions cost, and candidates that are left before they are trained."""
    head = ["V", "log error", "screened", *(f"{w:,} workers" for w in WORKERS)]
    rows = []
    cases = [(2, error, 0.0) for error in (0.0, 0.3, 0.5, 1.0)] + [(2, 0.3, 0.5), (4, 0.3, 0.5)]
    for each, error, screened in cases:
        row = [f"{each}W", f"{error:g}", f"{screened:.0%}"]
        for workers in WORKERS:
            true, predicted = drawn(workers, 1.0, error=error, screened=screened)
            schedule = VirtualSchedule(each * workers, Predicted(predicted))
            row.append(f"{utilisation(schedule, workers, true):.2f}")
        rows.append(row)
    yield from table(head, rows)


def of_search(seeds: int) -> Iterator[str]:
    """The hypervolume that a searcher reaches when proposals are made from older results."""
    scaling = scale(OBJECTIVES, (), toy_baseline())
    counts = (25, 50, 100, 200)
    rows = []
    for virtual in (1, 4, 8, 16):
        volumes: dict[int, list[float]] = {n: [] for n in counts}
        for seed in range(seeds):
            problem = toy_problem(seed=seed)
            searcher = make_searcher("evolution", {}, problem, toy_baseline())
            found = simulate(searcher, toy_trial, trials=max(counts), virtual=virtual).trials
            for n in counts:
                volumes[n].append(scaling.hypervolume(found[:n]))
        cells = [f"{mean(v):.3f} ± {stdev(v) / math.sqrt(seeds):.3f}" for v in volumes.values()]
        rows.append([str(virtual), *cells])
    yield from table(["V", *(f"{n} trials" for n in counts)], rows)


def epochs_of(study: str) -> tuple[float, list[tuple[float, float]]]:
    """Seconds of the untouched model's trial; of each measured candidate, the seconds and the
    epochs that it was expected to take.
    """
    baseline, *rows = json.loads((RESULTS / f"{study}.json").read_text())
    found, trials = Durations(Space({n: STAGES.get(n).card() for n in STAGES.names()})), []
    for row in rows:
        if row["status"] in ("complete", "infeasible"):
            proposal = Proposal(row["number"], Pipeline.from_list(row["pipeline"]))
            trials.append((row["seconds"], found.predict(proposal) - found.rates.fixed_s))
            found.learn(proposal.ended(TrialStatus(row["status"])))
    return baseline["seconds"], trials


def logs(fixed_s: float, epoch_s: float, trials: Sequence[tuple[float, float]]) -> np.ndarray:
    return np.array([math.log((fixed_s + epoch_s * e) / s) for s, e in trials])


def of_recorded() -> Iterator[str]:
    """Predicted seconds against those that trials of recorded studies took, the rate of an epoch
    fitted on the others, and then on the grid that schedules use."""
    rates = np.geomspace(0.1, 200, 800)
    rows = []
    for study in STUDIES:
        fixed_s, trials = epochs_of(study)
        exact, gridded = [], []
        for i in range(len(trials)):
            rest = trials[:i] + trials[i + 1 :]
            epoch_s = min(rates, key=lambda rate: float(np.sum(logs(fixed_s, rate, rest) ** 2)))
            exact += list(logs(fixed_s, epoch_s, trials[i : i + 1]))
            grid = Rates.of(fixed_s, float(epoch_s))
            gridded += list(logs(grid.fixed_s, grid.epoch_s, trials[i : i + 1]))
        spread = stdev(math.log(s) for s, _ in trials)
        row = [study, str(len(trials)), f"{spread:.2f}"]
        for errors in (exact, gridded):
            around = np.array(errors) - np.mean(errors)
            row += [f"{np.sqrt(np.mean(around**2)):.2f}", f"{np.median(np.abs(around)):.2f}"]
        rows.append(row)
    head = ["study", "trials", "log spread", "log error", "median", "on the grid", "median"]
    yield from table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=30, help="of the searches")
    seeds: int = parser.parse_args().seeds
    lines = [
        "# Virtual schedules: how busy workers are, and what that costs",
        "",
        "- command: `python benchmarks/schedule_utilisation.py`; simulated, the same anywhere",
        "",
        "## Utilisation",
        "",
        "Share of the workers' time that is worked until the last of max(1,000, 20 W) proposals is"
        f" made. Seconds are lognormal; predictions are off by a log error of {ERROR:g}.",
        "",
        *of_schedules(),
        "At log spread 1, by the error of the predictions, and with a share of candidates that take"
        " a twentieth of what was predicted.",
        "",
        *of_errors(),
        "## The search",
        "",
        f"Hypervolume on the toy problem, `evolution`, mean of {seeds} seeds, its standard error.",
        "",
        *of_search(seeds),
        "## Predicted seconds",
        "",
        "Standard deviation, and median of the absolute value, of log(predicted / taken) around its"
        " mean, which changes no order. Fixed part: the untouched model's trial; rate of an epoch:"
        " fitted on the other trials (a study measures it when it begins).",
        "",
        *of_recorded(),
    ]
    (RESULTS / "schedule-utilisation.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
