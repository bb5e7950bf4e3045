"""Searchers of other libraries on petra's spaces, for comparison: Optuna's samplers as petra
searchers, and pymoo's SMS-EMOA where a pipeline is a point.

Optuna sees for every position which kind of stage is there ('none': no stage), and the parameters
of that kind; a stage that is not legal where it stands is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from pymoo.algorithms.moo.sms import SMSEMOA
from pymoo.core.problem import Problem as PymooProblem
from search_problems import Case

from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import FULL, Origin, Proposal, Trial
from petra.search.base import Problem, Searcher, Suggestion
from petra.search.scaling import scale
from petra.space.domains import Choice, Domain, Integer, Real

optuna.logging.set_verbosity(optuna.logging.ERROR)
NONE = "none"
AGAIN = 50  # pipelines of a sampler that were proposed before, answered from memory, in a row

SAMPLERS = {
    "TPE": lambda seed: TPESampler(seed=seed, multivariate=True, warn_independent_sampling=False),
    "GPSampler": lambda seed: GPSampler(seed=seed, warn_independent_sampling=False),
    "NSGA-II": lambda seed: NSGAIISampler(seed=seed, population_size=20),
}


def distribution(domain: Domain) -> BaseDistribution:
    """Optuna's word for a domain."""
    match domain:
        case Real(low, high, log):
            return FloatDistribution(low, high, log=log)
        case Integer(low, high, log):
            return IntDistribution(low, high, log=log)
        case Choice(values):
            return CategoricalDistribution(values)
    raise TypeError(f"no distribution for {domain}")


class OptunaSearcher(Searcher):
    """A sampler of Optuna's behind petra's contract. It remembers what it was asked, so a study of
    its cannot be continued: good for comparisons only.
    """

    stream = "optuna"

    def __init__(self, problem: Problem, baseline: Trial, sampler: BaseSampler) -> None:
        super().__init__(problem, baseline)
        self.scaling = scale(problem.objectives, problem.constraints, baseline)
        directions = ["minimize"] * len(problem.objectives)
        self.study = optuna.create_study(directions=directions, sampler=sampler)
        self._asked: dict[str, optuna.Trial] = {}
        self._known: dict[str, list[float] | None] = {}

    def suggest(self, rng: np.random.Generator) -> Suggestion | None:
        for _ in range(AGAIN):
            trial = self.study.ask()
            pipeline = self._pipeline(trial)
            key = pipeline.key
            if pipeline.stages and self.is_new(pipeline):
                self._asked[key] = trial
                return Suggestion(pipeline, Origin(("optuna",)))
            if key in self._known:
                self._answer(trial, self._known[key])
            else:
                self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return None

    def learn(self, trial: Trial) -> None:
        key = trial.pipeline.key
        usable = self.scaling.usable(trial)
        self._known[key] = [float(c) for c in self.scaling.costs(trial)] if usable else None
        if key in self._asked:
            self._answer(self._asked.pop(key), self._known[key])

    def _answer(self, trial: optuna.Trial, costs: list[float] | None) -> None:
        if costs is None:
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(trial, costs)

    def _pipeline(self, trial: optuna.Trial) -> Pipeline:
        space = self.problem.space
        stages: list[StageSpec] = []
        for at in range(space.max_length):
            options = [*sorted(space.cards)] + ([NONE] if at else [])
            kind = options[0]
            if len(options) > 1:
                kind = trial.suggest_categorical(f"{at}", options)
            if kind == NONE:
                continue
            params = {
                p.name: trial._suggest(f"{at}.{kind}.{p.name}", distribution(p.domain))
                for p in space.cards[kind].parameters
            }
            longer = Pipeline((*stages, space.cards[kind].normalize(params)))
            if space.is_legal(longer):
                stages = list(longer.stages)
        return Pipeline(tuple(stages))


def sms_emoa(case: Case, seed: int, budget: int, population: int = 20) -> Iterator[Trial]:
    """Trials of pymoo's SMS-EMOA with one offspring at a time: each is made from all results before
    it. Of the population sizes 10, 20, 50 and 100, 20 did best at 300 evaluations.
    """
    card = next(iter(case.problem.space.cards.values()))
    count = len(case.problem.objectives)
    problem = PymooProblem(n_var=card.width, n_obj=count, xl=0.0, xu=1.0)
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
