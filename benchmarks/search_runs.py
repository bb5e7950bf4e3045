"""Runs of searchers on cases: hypervolume after every evaluation, kept in a file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from search_problems import Case
from search_rivals import sms_emoa

from petra.core.trial import Trial
from petra.moo.dominance import front_mask
from petra.moo.hypervolume import hypervolume
from petra.search.base import Searcher
from petra.search.durations import Durations
from petra.search.scaling import Scaling, scale
from petra.search.schedule import Stream, VirtualSchedule
from petra.search.table import make_searcher

SMS_EMOA = "SMS-EMOA"  # sees every result before it proposes
# Searchers with options, by the names they have in tables. Nothing may end early.
SETTINGS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "surrogate": ("surrogate", {}),
    "uniform": ("uniform", {}),
    "evolution": ("evolution", {}),
    "TPE": ("optuna", {"sampler": "TPESampler"}),
    "GPSampler": ("optuna", {"sampler": "GPSampler"}),
    "NSGA-II": ("optuna", {"sampler": "NSGAIISampler", "population_size": 20}),
}


@dataclass(frozen=True)
class Run:
    """Hypervolume after 1, 2, ... evaluations; the seconds that the trials took until then, summed;
    and the CPU seconds of proposing one.
    """

    case: str
    searcher: str
    seed: int
    volumes: tuple[float, ...]
    seconds: tuple[float, ...]
    cost_s: float


def trials(case: Case, name: str, seed: int, budget: int, lag: int) -> Iterator[Trial]:
    """`budget` trials, in the order of proposing, each from all results but the last `lag` - 1."""
    if name == SMS_EMOA:
        yield from sms_emoa(case, seed, budget)
        return
    made = searcher(case, name, seed)
    stream = Stream(made, VirtualSchedule(lag, Durations(made.problem.space)))
    for _ in range(budget):
        proposal = stream.next()
        if proposal is None:
            return
        trial = case.evaluate(proposal)
        stream.put(trial)
        yield trial


def searcher(case: Case, name: str, seed: int) -> Searcher:
    """`name` is one of `SETTINGS`, perhaps with more options: "surrogate explore=0"."""
    known, *more = name.split()
    kind, options = SETTINGS[known]
    given = {key: json.loads(value) for key, value in (s.split("=") for s in more)}
    return make_searcher(kind, {**options, **given}, case.seeded(seed), case.baseline)


class Front:
    """Hypervolume of a growing set."""

    def __init__(self, scaling: Scaling) -> None:
        self.scaling, self.volume = scaling, 0.0
        self._rows = np.empty((0, len(scaling.objectives)))

    def put(self, trial: Trial) -> float:
        if self.scaling.usable(trial) and self.scaling.violation(trial) == 0:
            costs = self.scaling.costs(trial)
            if not (self._rows <= costs).all(axis=1).any():
                rows = np.vstack([self._rows, costs])
                self._rows = rows[front_mask(rows)]
                self.volume = hypervolume(self._rows, self.scaling.reference)
        return self.volume


def run(case: Case, name: str, seed: int, budget: int, lag: int) -> Run:
    """One searcher, once."""
    scaling = scale(case.problem.objectives, case.problem.constraints, case.baseline)
    front = Front(scaling)
    volumes, seconds, total = [], [], 0.0
    start = time.process_time()
    for trial in trials(case, name, seed, budget, lag):
        total += trial.seconds
        volumes.append(round(front.put(trial), 6))
        seconds.append(round(total, 1))
    cost = (time.process_time() - start) / max(len(volumes), 1)
    return Run(case.name, name, seed, tuple(volumes), tuple(seconds), round(cost, 4))


class Kept:
    """Runs in a file of JSON lines, so that a long comparison goes on where it was cut off."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: dict[tuple[str, str, int], Run] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            self._add(Run(**json.loads(line)))

    def _add(self, made: Run) -> None:
        self.runs[made.case, made.searcher, made.seed] = made

    def make(self, case: Case, name: str, seed: int, budget: int, lag: int) -> None:
        """Make a run, unless it is there and long enough."""
        known = self.runs.get((case.name, name, seed))
        if known is None or len(known.volumes) < budget:
            made = run(case, name, seed, budget, lag)
            self._add(made)
            with self.path.open("a") as file:
                file.write(json.dumps(made.__dict__) + "\n")

    def longest(self, case: Case, name: str) -> int:
        """The most evaluations of a run that is there; 0 for none."""
        found = [r for k, r in self.runs.items() if k[:2] == (case.name, name)]
        return max((len(r.volumes) for r in found), default=0)

    def of(self, case: Case, name: str, budget: int) -> list[Run]:
        """The runs of so many evaluations, by seed."""
        keys = sorted(k for k in self.runs if k[:2] == (case.name, name))
        return [self.runs[k] for k in keys if len(self.runs[k].volumes) >= budget]


def curves(runs: Iterable[Run], budget: int) -> np.ndarray:
    """Hypervolumes (runs, budget); a search that ended early keeps what it has."""
    rows = []
    for one in runs:
        volumes = list(one.volumes[:budget])
        rows.append(volumes + volumes[-1:] * (budget - len(volumes)))
    return np.array(rows)
