"""Learn the prior that petra ships with from the recorded evaluations:

    python benchmarks/learn_prior.py [--without WORKLOAD] [--out FILE]

`--without` leaves a workload out, to see what the others know of it: then nothing is written but
how well its costs are ranked (Spearman's correlation).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from recordings import HERE, recorded
from scipy.stats import spearmanr

import petra.prior
from petra.core.objective import named_objectives
from petra.prior.learn import Course, Lesson, learn, lessons
from petra.search.prior import WORKS, Prior
from petra.search.scaling import scale

METRICS = ("quality", "latency_ratio", "latency_ms", "size_bytes", "params", "macs", "memory_mb")
LEAST = 0.01  # of a term, in standard deviations of what it is about
PLACES = (("onnxruntime", "cpu"),)


def course(workload: str) -> Course:
    """What one workload teaches."""
    found = recorded(workload)
    scaling = scale(named_objectives(METRICS), (), found.baseline)
    return Course(lessons([row.trial for row in found.whole()], scaling))


def agreement(prior: Prior, taught: tuple[Lesson, ...]) -> dict[str, float]:
    """Rank correlation of what a prior says of pipelines and what they cost, by quantity."""
    found = {}
    for name in (*METRICS, WORKS):
        known = [lesson for lesson in taught if name in lesson.costs]
        said = [prior.models[name].predict(lesson.features) for lesson in known]
        costs = [lesson.costs[name] for lesson in known]
        found[name] = float(spearmanr(said, costs).statistic) if np.std(said) else 0.0
    return found


def workloads() -> list[str]:
    return sorted(path.name.removesuffix(".jsonl.gz") for path in HERE.glob("*.jsonl.gz"))


def main() -> None:
    shipped = Path(petra.prior.__file__).parent / "shipped.json"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without", choices=workloads())
    parser.add_argument("--out", type=Path, default=shipped)
    options = parser.parse_args()
    courses = {name: course(name) for name in workloads() if name != options.without}
    prior = learn(list(courses.values()))
    if options.without:
        for name, rho in agreement(prior, course(options.without).lessons).items():
            print(f"{name}: {rho:.2f}")
        return
    data = {
        "learnt from": {name: len(c.lessons) for name, c in courses.items()},
        "places": PLACES,
        "models": told(prior),
    }
    options.out.write_text(_lines(data) + "\n")


def told(prior: Prior) -> dict[str, dict[str, list[float]]]:
    """Without the terms that hardly say anything."""
    return {
        name: {term: pair for term, pair in terms.items() if max(map(abs, pair)) >= LEAST}
        for name, terms in prior.as_dict().items()
    }


def _lines(data: Mapping[str, object]) -> str:
    """JSON with a line for each key of the outer two levels."""
    parts = []
    for key, value in data.items():
        inner = value.items() if isinstance(value, dict) else ()
        rows = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in inner)
        parts.append(f" {json.dumps(key)}: " + (f"{{\n{rows}\n }}" if rows else json.dumps(value)))
    return "{\n" + ",\n".join(parts) + "\n}"


if __name__ == "__main__":
    main()
