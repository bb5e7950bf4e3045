"""The recorded workloads as problems to compare searchers on: what a pipeline is worth is answered
by models that were fitted to the recorded evaluations, in milliseconds.

    python benchmarks/recorded_problems.py

prints how well they predict evaluations that they were not fitted to. They are trees, so that no
searcher has its own kind of model for a truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from recorded_workloads import LONGEST, WORKLOADS
from recordings import Recorded, Row, recorded
from scipy.stats import spearmanr
from search_problems import Case
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.feature_extraction import DictVectorizer
from sklearn.model_selection import KFold

from petra.config import parse_config
from petra.core.measurement import Measurement
from petra.core.objective import Constraint, named_objectives
from petra.core.pipeline import Pipeline
from petra.core.rng import generator
from petra.core.trial import Failure, Proposal, Trial, TrialStatus
from petra.search.base import Problem
from petra.search.prior import features
from petra.study import Study

Vector = NDArray[np.float64]
HERE = Path(__file__).parent
NAMES = ("quality", "latency_ratio", "size_bytes")
TREES = {"n_estimators": 200, "min_samples_leaf": 2, "max_features": 0.5, "random_state": 0}
FLOOR = 0.02  # a loss of quality is predicted as log(loss + FLOOR)
NOISE = {"quality": 0.3, "latency_ratio": 1.0, "size_bytes": 0.0}  # of the usual standard error
LEAST_S = 0.05  # seconds that are told apart
AFTERWARDS = {"export": ("export",), "measure": ("measure", "compare", "score")}  # by phases
LAUNCH = 0.03  # by which latencies differ between processes, as a standard deviation


@dataclass(frozen=True)
class Replay:
    """Models of one workload; `errors` are usual standard errors of what was measured, `usual` the
    seconds of what does not depend on the pipeline.
    """

    vectors: DictVectorizer
    works: ExtraTreesClassifier
    models: dict[str, ExtraTreesRegressor]
    baseline: Trial
    errors: dict[str, float]
    usual: dict[str, float]

    def values(self, pipelines: list[Pipeline]) -> tuple[Vector, dict[str, Vector]]:
        """Chance of working (n,), and what is expected of each pipeline."""
        x = self.vectors.transform([features(p) for p in pipelines])
        chance = self.works.predict_proba(x)[:, list(self.works.classes_).index(1)]
        return chance, {name: model.predict(x) for name, model in self.models.items()}

    def trial(self, proposal: Proposal) -> Trial:
        """What the workload would answer: a function of the pipeline."""
        chance, found = self.values([proposal.pipeline])
        seconds = math.exp(float(found["seconds"][0]))
        if chance[0] < 0.5:
            failure = Failure(proposal.pipeline.stages[0].kind, "StageRefused", "replayed")
            return proposal.ended(TrialStatus.FAILED, failure=failure, seconds=seconds)
        rng = generator(0, proposal.pipeline.key, "replay")
        metrics = {}
        for name in NAMES:
            start = self.baseline.metrics[name].mean
            value = _value(name, float(found[name][0]), start)
            error = NOISE[name] * self.errors[name]
            if name == "latency_ratio":
                error = value * math.hypot(error / start, LAUNCH)
            value += error * float(rng.normal())
            metrics[name] = Measurement(value, error)
        return proposal.ended(TrialStatus.COMPLETE, metrics=metrics, seconds=seconds)


def _target(name: str, value: float, start: float) -> float:
    if name == "quality":
        return math.log(max(0.0, (start - value) / start) + FLOOR)
    return math.log(value / start)


def _value(name: str, target: float, start: float) -> float:
    if name == "quality":
        return start * (1 - (math.exp(target) - FLOOR))
    return start * math.exp(target)


def _targets(name: str, rows: list[Row], start: Trial) -> Vector:
    if name == "seconds":
        return np.log([max(row.trial.seconds, LEAST_S) for row in rows])
    if name == "stages":
        return np.log([max(_stages_s(row), LEAST_S) for row in rows])
    first = start.metrics[name].mean
    return np.array([_target(name, row.trial.metrics[name].mean, first) for row in rows])


def fitted(rows: list[Row], baseline: Trial) -> Replay:
    """Models of these evaluations."""
    vectors = DictVectorizer(sparse=False)
    x = vectors.fit_transform([features(row.trial.pipeline) for row in rows])
    good = np.array([row.trial.measured for row in rows])
    works = ExtraTreesClassifier(**{**TREES, "min_samples_leaf": 1}).fit(x, good.astype(int))
    measured = [row for row in rows if row.trial.measured]
    models = {
        name: ExtraTreesRegressor(**TREES).fit(x[good], _targets(name, measured, baseline))
        for name in NAMES
    }
    for name in ("seconds", "stages"):
        models[name] = ExtraTreesRegressor(**TREES).fit(x, _targets(name, rows, baseline))
    errors = {
        name: float(np.median([row.trial.metrics[name].stderr for row in measured]))
        for name in NAMES
    }
    usual = {
        name: float(np.median([sum(row.phases.get(p, 0.0) for p in parts) for row in measured]))
        for name, parts in AFTERWARDS.items()
    }
    return Replay(vectors, works, models, baseline, errors, usual)


def _stages_s(row: Row) -> float:
    """Seconds until the export."""
    after = {part for parts in AFTERWARDS.values() for part in parts}
    return sum(s for name, s in row.phases.items() if name not in after)


def held_out(found: Recorded, folds: int = 5) -> dict[str, str]:
    """How well evaluations are predicted by models that were fitted to the other folds."""
    rows = found.whole()
    collected: dict[str, list[tuple[float, float]]] = {}
    for train, rest in KFold(folds, shuffle=True, random_state=0).split(rows):
        replay = fitted([rows[i] for i in train], found.baseline)
        unseen = [rows[i] for i in rest]
        chance, said = replay.values([row.trial.pipeline for row in unseen])
        there = [float(row.trial.measured) for row in unseen]
        works = zip((chance > 0.5).astype(float).tolist(), there, strict=True)
        collected.setdefault("works", []).extend(works)
        for name, values in said.items():
            always = name in ("seconds", "stages")
            kept = [i for i, r in enumerate(unseen) if always or r.trial.measured]
            truth = _targets(name, [unseen[i] for i in kept], found.baseline)
            pairs = zip(values[kept].tolist(), truth.tolist(), strict=True)
            collected.setdefault(name, []).extend(pairs)
    return {name: _in_words(name, np.array(pairs)) for name, pairs in collected.items()}


def _in_words(name: str, pairs: Vector) -> str:
    said, truth = pairs[:, 0], pairs[:, 1]
    if name == "works":
        return f"{np.mean(said == truth):.0%} right, of which {truth.mean():.0%} work"
    error = float(np.sqrt(np.mean((said - truth) ** 2)))
    rho = float(spearmanr(said, truth).statistic)
    return f"rank correlation {rho:.2f}, root mean squared error of the logarithm {error:.2f}"


@cache
def replayed(workload: str) -> Replay:
    """The models of a workload, of all that was recorded."""
    found = recorded(workload)
    return fitted(found.whole(), found.baseline)


def phases(replay: Replay, pipeline: Pipeline) -> dict[str, float]:
    """Predicted seconds of a pipeline's stages, of its export, and of measuring and judging it."""
    _, found = replay.values([pipeline])
    return {**replay.usual, "stages": math.exp(float(found["stages"][0]))}


@cache
def problem(workload: str) -> Problem:
    """The space of the workload as a study of it has it, and petra's recipes for it."""
    model, task = WORKLOADS[workload]()
    config = parse_config({"prior": {"shipped": False}, "space": {"max_length": LONGEST}})
    return Study(Path("no-such-study"), config, model=model, task=task).problem


def recorded_case(workload: str, constraints: tuple[str, ...] = ()) -> Case:
    """Without recipes, which other libraries' samplers do not have either."""
    replay, known = replayed(workload), problem(workload)
    bounds = tuple(map(Constraint.parse, constraints))
    bare = Problem(known.space, named_objectives(NAMES), bounds)
    return Case(f"{workload}, recorded", bare, replay.baseline, replay.trial, timed=True)


if __name__ == "__main__":
    for workload in WORKLOADS:
        for name, words in held_out(recorded(workload)).items():
            print(f"{workload}, {name}: {words}")
