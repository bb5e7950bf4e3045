"""pymoo's SMS-EMOA on the cases whose pipelines are points."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pymoo.algorithms.moo.sms import SMSEMOA
from pymoo.core.problem import Problem
from search_problems import Case

from petra.core.pipeline import Pipeline
from petra.core.trial import FULL, Origin, Proposal, Trial


def sms_emoa(case: Case, seed: int, budget: int, population: int = 20) -> Iterator[Trial]:
    """Trials of pymoo's SMS-EMOA with one offspring at a time: each is made from all results before
    it. Of the population sizes 10, 20, 50 and 100, 20 did best at 300 evaluations.
    """
    card = next(iter(case.problem.space.cards.values()))
    count = len(case.problem.objectives)
    problem = Problem(n_var=card.width, n_obj=count, xl=0.0, xu=1.0)
    algorithm = SMSEMOA(pop_size=population, n_offsprings=1)
    algorithm.setup(problem, termination=("n_eval", budget + population), seed=seed)
    number = 0
    while number < budget:
        asked = algorithm.ask()
        rows = []
        for point in asked.get("X"):
            number += 1
            proposal = Proposal(number, Pipeline((card.decode(point),)), Origin(("sms",)), FULL)
            trial = case.evaluate(proposal)
            rows.append([trial.metrics[o.metric].mean for o in case.problem.objectives])
            yield trial
        asked.set("F", np.array(rows))
        asked.set("G", np.zeros((len(rows), 0)))
        asked.set("H", np.zeros((len(rows), 0)))
        for one in asked:
            one.evaluated.update({"F", "G", "H"})
        algorithm.tell(infills=asked)
