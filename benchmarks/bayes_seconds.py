"""Seconds that ``search: bayes`` takes for four proposals: ``python benchmarks/bayes_seconds.py``.

After so many observations of petra's toy problem (three objectives, failures), and of the space of
a digits study with made-up results. One batch: models are fitted once, then asked four times,
without a result in between. Prints a table. All of it runs on one thread, so processor time is what
the clock of a machine that does nothing else would say.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from host import heading

from petra.config import StudyConfig
from petra.core.rng import generator
from petra.core.trial import Proposal, Trial
from petra.problem import build_space
from petra.search.base import Problem
from petra.search.bayes.searcher import BayesOptions, BayesSearcher
from petra.testing.search_suite import recorded
from petra.testing.toy import OBJECTIVES, toy_baseline, toy_problem, toy_trial
from petra.workloads.digits import digits

BATCH = 4


def searcher_after(
    problem: Problem, evaluate: Callable[[Proposal], Trial], number: int, options: BayesOptions
) -> BayesSearcher:
    """A searcher that has been told `number` random pipelines, and opens a batch."""
    searcher = BayesSearcher(problem, toy_baseline(), options)
    rng = generator(0, "observed")
    while searcher.number <= number:
        pipeline = problem.space.sample(rng)
        if searcher.is_new(pipeline):
            proposal = Proposal(searcher.number, pipeline)
            searcher.restore(proposal)
            searcher.tell(evaluate(proposal))
    return searcher


def digits_problem() -> Problem:
    """The space of a study of the digits workload with all stages."""
    model, task = digits()
    config = StudyConfig.model_validate(
        {"workload": "digits", "objectives": ["quality", "size"], "budget": {"trials": 1}}
    )
    return Problem(build_space(config, task, model), OBJECTIVES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--observations", type=int, nargs="+", default=[48, 100, 200, 500])
    parser.add_argument("--inference", choices=("map", "nuts"), default="map")
    given = parser.parse_args()
    print(*heading("Seconds for four proposals", "python benchmarks/bayes_seconds.py"), sep="\n")
    print(f"- {given.inference}, four proposals at a time\n")
    print("| space | features | observations | wall clock, s | processor, s |")
    print("|---|---|---|---|---|")
    options = BayesOptions(batch=BATCH, inference=given.inference)
    BayesSearcher.check_installed()
    for name, made, evaluate in (
        ("toy", toy_problem, toy_trial),
        ("digits", digits_problem, recorded),
    ):
        problem = made()
        asked(searcher_after(problem, evaluate, 20, options))  # libraries are loaded
        for number in given.observations:
            searcher = searcher_after(problem, evaluate, number // BATCH * BATCH, options)
            wall, processor = asked(searcher)
            features = len(searcher.encoding)
            print(f"| {name} | {features} | {number} | {wall:.1f} | {processor:.1f} |", flush=True)


def asked(searcher: BayesSearcher) -> tuple[float, float]:
    """Wall clock and processor seconds of one batch of proposals."""
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(BATCH):
        assert searcher.ask() is not None
    return time.perf_counter() - wall, time.process_time() - processor


if __name__ == "__main__":
    main()
