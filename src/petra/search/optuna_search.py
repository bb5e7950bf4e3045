"""Optuna's samplers (https://optuna.org, version 5) on petra's pipelines: one adapter for them all.

A pipeline is put to a sampler as choices made one after the other (`petra.search.choices`), by
`sample_relative` and `sample_independent`, the two methods that every sampler has; Optuna's study
lies in memory and is made anew from what was proposed and told, like everything of a searcher.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from petra.core.errors import ConfigError, MissingExtra
from petra.core.objective import Objective
from petra.core.pipeline import Pipeline, Value
from petra.core.rng import generator
from petra.core.trial import Origin, Proposal, Trial
from petra.search.base import Problem, Searcher, Suggestion
from petra.search.choices import Choices
from petra.search.options import SearchOptions, option
from petra.space.domains import BOOLEAN, Choice, Domain, Integer, Real
from petra.space.ladder import Ladder

SAMPLED = Origin(("sampled",))
ATTEMPTS = 10  # pipelines drawn for one proposal before the search looks for one at random
# The samplers and which of our options each takes. All take a seed.
SAMPLERS: Mapping[str, tuple[str, ...]] = {
    "TPESampler": ("n_startup_trials", "multivariate", "group"),
    "GPSampler": ("n_startup_trials",),
    "NSGAIISampler": ("population_size",),
    "NSGAIIISampler": ("population_size",),
    "CmaEsSampler": ("n_startup_trials",),
    "RandomSampler": (),
}
# Those that write down, with a trial under way, what they will need when it has finished.
REMEMBERING = ("NSGAIISampler", "NSGAIIISampler", "CmaEsSampler")
SAYS_MUCH = {"GPSampler", "CmaEsSampler"}  # of every parameter that they leave to chance
STUDY = "petra"


@dataclass(frozen=True)
class OptunaOptions(SearchOptions):
    """Options of `OptunaSearcher`, under the names that Optuna has for them."""

    sampler: str = option("TPESampler", Choice(tuple(SAMPLERS)), "the class in optuna.samplers")
    n_startup_trials: int = option(
        10, Integer(0, 10_000), "finished trials before a model is fitted (TPE, GP, CMA-ES)"
    )
    multivariate: bool = option(True, BOOLEAN, "model parameters jointly (TPE)")
    group: bool = option(
        True, BOOLEAN, "jointly also those that not every pipeline has (multivariate TPE)"
    )
    population_size: int = option(50, Integer(2, 10_000), "size of a generation (NSGA-II and -III)")

    def __post_init__(self) -> None:
        super().__post_init__()
        library()  # refused here, before anything is spent on the study
        takes = SAMPLERS[self.sampler]
        for f in fields(self):
            given = getattr(self, f.name) != f.default
            if given and f.name not in ("sampler", *takes):
                raise ConfigError(
                    f"{f.name}: {self.sampler} has no such option",
                    hint=f"it has {', '.join(takes) or 'none'}",
                )
        if self.group and not self.multivariate:
            raise ConfigError("group: needs multivariate", hint="set group: false")


class OptunaSearcher(Searcher):
    """Proposes what a sampler of Optuna's draws: metrics are its objectives as they are, each with
    its direction; constraints are relative violations; trials under way are running ones; failed
    trials, and those not measured in full, are failed ones, which Optuna's samplers leave out.

    A sampler is made for each proposal with a seed of its own, so that a study goes on after an
    interruption as it would have without. That costs GPSampler its memory of kernel parameters.

    When it helps: to have a method of Optuna's, or to compare with one. When it does not: samplers
    that look only at parameters that every pipeline has (GPSampler, NSGA, CmaEsSampler) draw most
    others at random, unless the space has but one kind of stage; CmaEsSampler takes one objective,
    no constraints, and numbers only. Costs: TPE tens of milliseconds a proposal at a hundred trials
    and in proportion to their number, GPSampler seconds. Needs the extra ``optuna``.
    """

    Options = OptunaOptions
    stream = "optuna"

    def __init__(
        self, problem: Problem, baseline: Trial, options: OptunaOptions | None = None
    ) -> None:
        super().__init__(problem, baseline)
        self.options = options or OptunaOptions()
        self.choices = Choices(problem.space)
        self._optuna = library()
        if self.options.sampler == "CmaEsSampler" and len(problem.objectives) > 1:
            raise ConfigError(
                f"search.sampler: CmaEsSampler takes one objective, not {len(problem.objectives)}",
                hint="choose another sampler, or one objective",
            )
        self._storage = self._optuna.storages.InMemoryStorage()
        with quietly(self._optuna):
            self._study = self._storage.create_new_study(
                [direction(self._optuna, o) for o in problem.objectives], STUDY
            )
        # Of petra's trials, by number. Number 0 never ends: it lends its identity to every draw.
        self._ids = {0: self._storage.create_new_trial(self._study)}

    def suggest(self, rng: np.random.Generator) -> Suggestion | None:
        draft = self._ids[0]
        self._remember(draft, self.number)
        for _ in range(ATTEMPTS):
            pipeline = self._drawn(draft, rng)
            if self.is_new(pipeline):
                return Suggestion(pipeline, SAMPLED)
        return None

    def note(self, proposal: Proposal) -> None:
        made = self.choices.made(proposal.pipeline)
        values: dict[str, Value] = {}
        distributions: dict[str, Any] = {}
        for name, (value, domain) in made.items():
            if (known := distribution(self._optuna, domain)) is not None:
                distributions[name], values[name] = known, value
        running = self._optuna.trial.create_trial(
            state=self._optuna.trial.TrialState.RUNNING, params=values, distributions=distributions
        )
        trial = self._ids[proposal.number] = self._storage.create_new_trial(self._study, running)
        self._remember(trial, proposal.number)

    def learn(self, trial: Trial) -> None:
        number, states = self._ids[trial.number], self._optuna.trial.TrialState
        objectives, constraints = self.problem.objectives, self.problem.constraints
        values: list[float] = []
        violations: dict[str, float] = {}
        if trial.comparable:
            base = self.baseline.metrics
            values = [trial.metrics[o.metric].mean for o in objectives]
            violations = {str(c): c.violation(trial.metrics, base) for c in constraints}
        if not values or not all(map(math.isfinite, (*values, *violations.values()))):
            self._storage.set_trial_state_values(number, states.FAIL)
            return
        kept = self._optuna.trial.create_trial(state=states.FAIL, constraints=violations)
        for key, violation in kept.system_attrs.items():
            self._storage.set_trial_system_attr(number, key, violation)
        self._storage.set_trial_state_values(number, states.COMPLETE, values)

    # ---- Optuna's side

    def _drawn(self, draft: int, rng: np.random.Generator) -> Pipeline:
        """A pipeline by a sampler with a seed from `rng`."""
        study = self._opened(int(rng.integers(2**31)))
        sampler, trial = study.sampler, self._storage.get_trial(draft)
        searched = sampler.infer_relative_search_space(study, trial)
        relative = dict(sampler.sample_relative(study, trial, searched))

        def choose(name: str, domain: Domain) -> Value:
            wanted = distribution(self._optuna, domain)
            if wanted is None or wanted.single():
                return domain.sample(rng)
            value: Value
            if searched.get(name) == wanted and name in relative:
                value = relative.pop(name)  # asked again, it is drawn on its own
            else:
                value = sampler.sample_independent(study, trial, name, wanted)
            return value

        pipeline = self.choices.draw(choose, rng)
        for key in trial.system_attrs.keys() | self._storage.get_trial(draft).system_attrs.keys():
            self._storage.set_trial_system_attr(draft, key, None)  # nothing of it is under way
        return pipeline

    def _remember(self, trial: int, number: int) -> None:
        """Let the sampler write down what it must know of proposal `number` later, such as its
        generation. The same whenever it is done before the next result is told.
        """
        if self.options.sampler in REMEMBERING:
            rng = generator(self.problem.seed, self.stream, number, "remember")
            study, frozen = self._opened(int(rng.integers(2**31))), self._storage.get_trial(trial)
            searched = study.sampler.infer_relative_search_space(study, frozen)
            study.sampler.sample_relative(study, frozen, searched)

    def _opened(self, seed: int) -> Any:
        """The study as it is now, with a fresh sampler."""
        taken = {name: getattr(self.options, name) for name in SAMPLERS[self.options.sampler]}
        if self.options.sampler in SAYS_MUCH:
            taken["warn_independent_sampling"] = False
        kind = getattr(self._optuna.samplers, self.options.sampler)
        with quietly(self._optuna):
            return self._optuna.load_study(
                study_name=STUDY, storage=self._storage, sampler=kind(seed=seed, **taken)
            )


def library() -> Any:
    """Optuna. Raises MissingExtra."""
    try:
        import optuna
    except ImportError:
        raise MissingExtra("optuna", extra="optuna") from None
    return optuna


def distribution(optuna: Any, domain: Domain) -> Any:
    """Optuna's distribution for a domain; None for one that it has none for."""
    kinds = optuna.distributions
    if isinstance(domain, Real):
        return kinds.FloatDistribution(domain.low, domain.high, log=domain.log)
    if isinstance(domain, Integer):
        return kinds.IntDistribution(domain.low, domain.high, log=domain.log)
    if isinstance(domain, Choice | Ladder):
        return kinds.CategoricalDistribution(domain.values)
    return None


def direction(optuna: Any, objective: Objective) -> Any:
    """Optuna's direction of an objective."""
    ways = optuna.study.StudyDirection
    return ways.MAXIMIZE if objective.maximize else ways.MINIMIZE


@contextmanager
def quietly(optuna: Any) -> Iterator[None]:
    """Without Optuna's notes on what it makes and on what is experimental."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)
