"""Searchers on the space of adapters, compared without training: quality is answered by trees that
were fitted to a study's evaluations, trained parameters are counted.

    python benchmarks/peft_replay.py runs/peft/rte --seeds 10

prints how well held-out evaluations are predicted, and hypervolume at equal numbers of evaluations.
Trees are no searcher's own kind of model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from search_problems import Case
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import KFold

from petra.api import live_study
from petra.core.measurement import Measurement
from petra.core.pipeline import Pipeline
from petra.core.rng import generator
from petra.core.trial import Proposal, Trial, TrialStatus
from petra.moo.archive import Archive
from petra.search.base import Problem
from petra.search.durations import Durations
from petra.search.scaling import scale
from petra.search.schedule import Stream, VirtualSchedule
from petra.search.table import make_searcher
from petra.space.encoding import Encoding
from petra.space.space import Space

Vector = NDArray[np.float64]
METRIC = "trainable_params"
TREES: dict[str, Any] = {"n_estimators": 300, "min_samples_leaf": 2, "random_state": 0}
LAG = 4  # proposals that are under way at a time, as published
AT = (25, 50, 100, 150, 200)
SEARCHERS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "bayes": ("bayes", {"initial": 50}),
    "surrogate (default)": ("surrogate", {}),
    "evolution": ("evolution", {}),
    "structure first": ("structure_first", {"bits": 60}),
    "random": ("uniform", {}),
}


@dataclass(frozen=True, eq=False)
class Recorded:
    """A study's space and what was evaluated of it in full."""

    problem: Problem
    baseline: Trial
    trials: tuple[Trial, ...]

    @staticmethod
    def of(directory: Path) -> Recorded:
        """Of a study that this user began: model and data are made anew for the space."""
        study = live_study(directory)
        trials = study.trials
        kept = [t for t in trials if t.number and t.comparable and METRIC in t.metrics]
        bare = replace(study.problem, initial=(), recipes=(), past=(), prior=None)
        return Recorded(bare, trials[0], tuple(kept))


def terms(space: Space, pipeline: Pipeline) -> dict[str, float]:
    """What trained parameters are linear in: of each size and of its being there, that times the
    number of blocks that are on, and the number itself."""
    found: dict[str, float] = {}
    for stage in pipeline:
        values = space.cards[stage.kind].values(stage)
        blocks = sum(bool(v) for name, v in values.items() if "." in name)
        for name, value in values.items():
            if "." not in name and isinstance(value, int):
                found[name] = float(blocks * int(value))
                found[f"{name} on"] = float(blocks * bool(value))
                found[f"{name}, once"] = float(value)
    return found


class Replay:
    """What a study's evaluations say of every pipeline of its space."""

    def __init__(self, known: Recorded, trials: Sequence[Trial] | None = None) -> None:
        self.known = known
        self.encoding = Encoding(known.problem.space)
        used = known.trials if trials is None else trials
        x = np.array([self.encoding.encode(t.pipeline) for t in used])
        y = np.array([t.metrics["quality"].mean for t in used])
        self.quality = ExtraTreesRegressor(**TREES).fit(x, y)
        self.noise = float(np.median([t.metrics["quality"].stderr for t in used]))
        rows = [terms(known.problem.space, t.pipeline) for t in used]
        self._names = sorted({name for row in rows for name in row})
        table = np.array([[row.get(name, 0.0) for name in self._names] for row in rows])
        counts = np.array([t.metrics[METRIC].mean for t in used])
        self._weights = np.linalg.lstsq(table, counts, rcond=None)[0]

    def count(self, pipeline: Pipeline) -> float:
        """Trained parameters."""
        row = terms(self.known.problem.space, pipeline)
        return float(np.array([row.get(name, 0.0) for name in self._names]) @ self._weights)

    def expected(self, pipelines: Sequence[Pipeline]) -> Vector:
        """Quality (n,)."""
        found: Vector = self.quality.predict([self.encoding.encode(p) for p in pipelines])
        return found

    def trial(self, proposal: Proposal) -> Trial:
        """What the study would have answered: a function of the pipeline."""
        quality = float(self.expected([proposal.pipeline])[0])
        noise = float(generator(0, proposal.pipeline.key, "replay").normal())
        metrics = {
            "quality": Measurement(quality + 0.3 * self.noise * noise, self.noise),
            METRIC: Measurement(max(1.0, round(self.count(proposal.pipeline)))),
        }
        return proposal.ended(TrialStatus.COMPLETE, metrics=metrics)

    def case(self) -> Case:
        return Case("adapters, recorded", self.known.problem, self.known.baseline, self.trial)


def held_out(known: Recorded, folds: int = 5) -> str:
    """How well evaluations are predicted that trees were not fitted to."""
    said, truth, counts = [], [], []
    for train, rest in KFold(folds, shuffle=True, random_state=0).split(known.trials):
        replay = Replay(known, [known.trials[i] for i in train])
        unseen = [known.trials[i] for i in rest]
        said += list(replay.expected([t.pipeline for t in unseen]))
        truth += [t.metrics["quality"].mean for t in unseen]
        real = [max(t.metrics[METRIC].mean, 1.0) for t in unseen]
        counts += [replay.count(t.pipeline) / n - 1 for t, n in zip(unseen, real, strict=True)
                   if n > 1]  # fmt: skip
    rho = float(spearmanr(said, truth).statistic)
    return (
        f"{len(known.trials)} evaluations; held out: rank correlation of quality {rho:.2f}, trained"
        f" parameters within {100 * max(map(abs, counts)):.2g}%"
    )


def volumes(case: Case, name: str, options: Mapping[str, object], seed: int, budget: int) -> Vector:
    """Hypervolume after 1, 2, ... evaluations."""
    made = make_searcher(name, options, case.seeded(seed), case.baseline)
    stream = Stream(made, VirtualSchedule(LAG, Durations(case.problem.space)))
    scaling = scale(case.problem.objectives, (), case.baseline)
    front = Archive(scaling.reference)
    found: list[float] = []
    while len(found) < budget and (proposal := stream.next()) is not None:
        trial = case.evaluate(proposal)
        stream.put(trial)
        if scaling.usable(trial):
            front.add(trial.number, scaling.costs(trial))
        found.append(front.volume)
    return np.array(found + found[-1:] * (budget - len(found)))


def compare(directory: Path, out: Path, *, seeds: int, budget: int = AT[-1]) -> None:
    """Run all searchers with every seed and write their hypervolumes."""
    known = Recorded.of(directory)
    case, at = Replay(known).case(), [n for n in AT if n <= budget]
    found: dict[str, list[list[float]]] = {}
    for name, (kind, options) in SEARCHERS.items():
        for seed in range(seeds):
            curve = volumes(case, kind, options, seed, budget)
            found.setdefault(name, []).append([float(curve[n - 1]) for n in at])
            print(f"{name}, seed {seed}: {found[name][-1]}", flush=True)
    about = (
        f"Quality and trained parameters of {directory.name} answered by models of what was"
        f" evaluated ({held_out(known)}). Hypervolume, mean ± standard error over {seeds} seeds."
    )
    out.write_text(json.dumps({"about": about, "at": at, "volumes": found}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budget", type=int, default=AT[-1])
    given = parser.parse_args()
    print(held_out(Recorded.of(given.study)))
    compare(
        given.study, given.study.parent / "volumes.json", seeds=given.seeds, budget=given.budget
    )


if __name__ == "__main__":
    main()
