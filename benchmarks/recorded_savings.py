"""What each saving is worth, alone and all together, and beside what has none: seconds of recorded
candidates until a search has a given hypervolume.

    python benchmarks/recorded_savings.py --seeds 20

Runs are kept in `--keep`, so that it goes on where it was cut off. Replays searches on the
recorded workloads (`recorded_problems.py`). Where a candidate is left,
petra's own rules decide (`petra.execute.prospects`), on what the replayed candidate costs. The
prior is learnt from the other workload alone.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from host import heading
from joblib import Parallel, delayed
from learn_prior import course
from recorded_problems import HERE, Replay, phases, problem, replayed
from recorded_workloads import WORKLOADS
from search_runs import SETTINGS, Front

from petra.core.objective import Metrics
from petra.core.pipeline import Pipeline
from petra.core.rivals import Rivals
from petra.core.trial import Failure, Proposal, Trial, TrialStatus
from petra.execute.prospects import Known, Span, audited, can_be_screened, hopeless
from petra.execute.screen import LAUNCHES, LEAST_TRAINING_S, SIZE_ERROR
from petra.prior.learn import learn
from petra.search.base import Problem
from petra.search.durations import Durations, trained_epochs
from petra.search.scaling import scale
from petra.search.schedule import Stream, VirtualSchedule
from petra.search.table import make_searcher

COSTS = frozenset({"size_bytes", "latency_ratio"})
RACED = 0.5  # of the seconds of measuring, where latency is timed as long as it matters
ARMS: Mapping[str, frozenset[str]] = {
    "none": frozenset(),
    "recipes": frozenset({"recipes"}),
    "prior": frozenset({"prior"}),
    "costs before training": frozenset({"screen"}),
    "quality before export": frozenset({"gate"}),
    "raced timing": frozenset({"race"}),
    "surrogate instead of evolution": frozenset({"surrogate"}),
    "all": frozenset({"recipes", "prior", "screen", "gate", "race", "surrogate"}),
}
RIVALS = {"random draws": "uniform", "Optuna's TPE": "TPE", "Optuna's NSGA-II": "NSGA-II"}
"""Searchers by their names in `search_runs`, of which every candidate is evaluated in full."""


@dataclass(frozen=True)
class Arm:
    """One way to search one workload."""

    replay: Replay
    problem: Problem
    savings: frozenset[str]
    searcher: str

    def evaluate(self, proposal: Proposal, rivals: Rivals) -> Trial:
        """The replayed candidate, as far as it is evaluated, with the seconds that this takes."""
        whole = self.replay.trial(proposal)
        spent = phases(self.replay, proposal.pipeline)
        if not whole.measured:
            return replace(whole, seconds=spent["stages"])
        cheap = {name: whole.metrics[name] for name in COSTS}
        seconds = 0.0
        if "screen" in self.savings and self._worth_screening(proposal.pipeline, rivals, spent):
            seconds += spent["export"] + RACED * spent["measure"]
            size, latency = (whole.metrics[name].mean for name in ("size_bytes", "latency_ratio"))
            known = {
                "size_bytes": Span(size * (1 - SIZE_ERROR), size * (1 + SIZE_ERROR)),
                "latency_ratio": Span(latency * (1 - LAUNCHES), latency * (1 + LAUNCHES)),
            }
            if self._left(proposal, known, rivals):
                return self._screened(proposal, cheap, seconds)
        seconds += spent["stages"]
        if "gate" in self.savings:
            quality = whole.metrics["quality"]
            error = 2 * quality.stderr
            known = {"quality": Span(quality.mean - error, quality.mean + error)}
            if self._left(proposal, known, rivals):
                return self._screened(proposal, {"quality": quality}, seconds)
        race = RACED if "race" in self.savings else 1.0
        seconds += spent["export"] + race * spent["measure"]
        return replace(whole, seconds=seconds)

    def _worth_screening(
        self, pipeline: Pipeline, rivals: Rivals, spent: Mapping[str, float]
    ) -> bool:
        trains = any(trained_epochs(stage) for stage in pipeline)
        return trains and spent["stages"] > LEAST_TRAINING_S and can_be_screened(rivals, COSTS)

    def _left(self, proposal: Proposal, known: Known, rivals: Rivals) -> bool:
        return hopeless(known, rivals) is not None and not audited(
            self.problem.seed, proposal.pipeline
        )

    def _screened(self, proposal: Proposal, known: Metrics, seconds: float) -> Trial:
        failure = Failure("screen", "dominated", "replayed")
        return proposal.ended(
            TrialStatus.SCREENED, metrics=dict(known), failure=failure, seconds=seconds
        )

    def trials(self, budget_s: float, lag: int = 4) -> Iterator[Trial]:
        """One search, until so many seconds are spent."""
        kind, options = SETTINGS[self.searcher]
        stream = Stream(
            make_searcher(kind, options, self.problem, self.replay.baseline),
            VirtualSchedule(lag, Durations(self.problem.space)),
        )
        spent = 0.0
        while spent < budget_s and (proposal := stream.next()) is not None:
            trial = self.evaluate(proposal, stream.rivals(proposal.number))
            spent += trial.seconds
            stream.put(trial)
            yield trial


@cache
def arms(workload: str) -> dict[str, Arm]:
    """By name, the rivals last."""
    return dict(_arms(workload))


def _arms(workload: str) -> Iterator[tuple[str, Arm]]:
    replay, known = replayed(workload), problem(workload)
    prior = learn([course(other) for other in WORKLOADS if other != workload])
    for name, savings in ARMS.items():
        given = replace(
            known,
            initial=known.initial if "recipes" in savings else (),
            recipes=known.recipes if "recipes" in savings else (),
            prior=prior if "prior" in savings else None,
        )
        searcher = "surrogate" if "surrogate" in savings else "evolution"
        yield name, Arm(replay, given, savings, searcher)
    bare = replace(known, initial=(), recipes=(), prior=None)
    for name, searcher in RIVALS.items():
        yield name, Arm(replay, bare, frozenset(), searcher)


Curve = list[tuple[float, float]]


def curve(workload: str, name: str, seed: int, budget_s: float) -> Curve:
    """Seconds and hypervolume after each trial of one search."""
    arm = arms(workload)[name]
    arm = replace(arm, problem=replace(arm.problem, seed=seed))
    known = arm.problem
    front = Front(scale(known.objectives, known.constraints, arm.replay.baseline))
    found, spent = [], 0.0
    for trial in arm.trials(budget_s):
        spent += trial.seconds
        found.append((round(spent, 1), round(front.put(trial), 5)))
    return found


def curves(workload: str, options: argparse.Namespace) -> dict[str, list[Curve]]:
    """The runs of every arm; those that are not kept are made, and kept."""
    key = [workload, options.budget]
    lines = options.keep.read_text().splitlines() if options.keep.exists() else []
    known = {(n, seed): run for *k, n, seed, run in map(json.loads, lines) if k == key}
    for name in arms(workload):
        missing = [seed for seed in range(options.seeds) if (name, seed) not in known]
        made = Parallel(options.processes, return_as="generator")(
            delayed(curve)(workload, name, seed, options.budget) for seed in missing
        )
        with options.keep.open("a") as file:
            for seed, run in zip(missing, made, strict=True):
                known[name, seed] = run
                print(json.dumps([*key, name, seed, run]), file=file, flush=True)
        print(workload, name, flush=True)
    return {n: [known[n, seed] for seed in range(options.seeds)] for n in arms(workload)}


def seconds_to(runs: list[Curve], wanted: float) -> str:
    """Median over runs, in words."""
    found = [next((s for s, v in run if v >= wanted), math.inf) for run in runs]
    middle = float(np.median(found))
    return f"{middle:.0f}" if math.isfinite(middle) else f"> {runs[0][-1][0]:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budget", type=float, default=800.0, help="seconds of candidates")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=Path("savings-runs.jsonl"))
    options = parser.parse_args()
    command = f"python benchmarks/recorded_savings.py --seeds {options.seeds}"
    lines = heading("What savings are worth", command)
    lines += [
        f"- median seconds of candidates, of {options.seeds} searches of {options.budget:.0f} s",
        "",
    ]
    for workload in WORKLOADS:
        runs = curves(workload, options)
        best = max(float(np.mean([run[-1][1] for run in r])) for r in runs.values())
        goals = (0.9, 0.95, 0.98)
        lines += [
            f"## {workload}",
            "",
            f"Shares of a hypervolume of {best:.3f}, the best mean at the end.",
            "",
            f"| saving | {' | '.join(f's to {g:.0%}' for g in goals)} | trials | at the end |",
            "|---" * (len(goals) + 3) + "|",
        ]
        for name, r in runs.items():
            cells = [seconds_to(r, goal * best) for goal in goals]
            count, last = np.mean([len(run) for run in r]), np.mean([run[-1][1] for run in r])
            lines.append(f"| {name} | {' | '.join(cells)} | {count:.0f} | {last:.3f} |")
        lines.append("")
    (HERE / "results" / "recorded-savings.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
