"""Multi-objective Bayesian optimisation of pipelines, after AutoPEFT (arXiv 2301.12132)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from petra.core.errors import MissingExtra
from petra.core.rng import derive_seed
from petra.core.trial import Origin, Proposal, Trial
from petra.moo.dominance import front_mask
from petra.moo.selection import survivors
from petra.search.base import RANDOM, Problem, Searcher, Suggestion
from petra.search.bayes.observations import lessons, remembered
from petra.search.bayes.walk import Walk
from petra.search.options import SearchOptions, option
from petra.search.scaling import scale
from petra.space.domains import Choice, Integer
from petra.space.encoding import Encoding
from petra.space.table import MOVES

if TYPE_CHECKING:
    from petra.search.bayes.gaussian import Hyperparameters

Floats = NDArray[np.float64]
TRIES = 100  # draws for a kind of stage not seen yet
FEWEST = 3  # trials measured in full, the untouched model among them, before there is a model
MOST_FITTED = 200  # trials that hyperparameters are learnt from, at most
MOST_GIVEN = 500  # trials that predictions are made from, at most
# Members of the front that an improvement is counted against, at most, by number of objectives:
# what the boxes between them cost grows with its power.
MOST_ON_FRONT = {1: 64, 2: 64, 3: 64, 4: 20, 5: 12}


@dataclass(frozen=True)
class BayesOptions(SearchOptions):
    """Options of `BayesSearcher`."""

    initial: int = option(16, Integer(1, 10_000), "pipelines drawn before models propose any")
    batch: int = option(
        4,
        Integer(1, 1000),
        "trials that models are fitted for at once, and are called a generation",
    )
    inference: str = option(
        "map", Choice(("map", "nuts")), "hyperparameters: a few likely ones, or samples of all"
    )
    restarts: int = option(10, Integer(1, 1000), "walks of the local search")
    evaluations: int = option(
        2000, Integer(1, 1_000_000), "pipelines that the local search looks at for a proposal"
    )


class BayesSearcher(Searcher):
    """AutoPEFT's search: a Gaussian process with the SAAS prior for each objective, in normal
    scores; the pipeline of the greatest noisy expected hypervolume improvement, found by local
    search from the front.

    A constraint on another metric, and failing, have a process each: the improvement counts as far
    as they are likely kept. Trials that were left before they were trained, or not evaluated in
    full, teach what does not depend on training. Models see a pipeline through `Encoding`: that of
    the very pipeline that is proposed and stored, never a point that was rounded to it.

    When it helps: tens to a few hundred trials, each of minutes. When it does not: thousands of
    trials, for which evolution is made; candidates of seconds, where a second or two for a proposal
    counts. Proposals are functions of what was told, on one machine; on another the last digits of
    a fit may differ, and then proposals do. A continued study is told what was proposed and what
    came of it, so it goes on from the same trials anywhere.

    Needs the extra `bayes`.
    """

    Options = BayesOptions
    stream = "bayes"

    @classmethod
    def check_installed(cls) -> None:
        for package in ("botorch", "gpytorch"):
            if find_spec(package) is None:
                raise MissingExtra(package, extra="bayes")

    def __init__(
        self, problem: Problem, baseline: Trial, options: BayesOptions | None = None
    ) -> None:
        super().__init__(problem, baseline)
        self.options = options or BayesOptions()
        self.scaling = scale(problem.objectives, problem.constraints, baseline)
        self.encoding = Encoding(problem.space)
        self._moves = [m for m in MOVES.all() if m.concerns(problem.space)]
        self._unseen = set(problem.space.cards)  # kinds of stage not proposed yet
        self._trials = [baseline]
        self._features = [self.encoding.encode(baseline.pipeline)]
        self._to_fit = 1  # the first so many of the trials are what the models are fitted to
        self._fitted: tuple[int, dict[str, Hyperparameters]] = (0, {})

    @property
    def generation(self) -> int:
        return self.options.batch

    def learn(self, trial: Trial) -> None:
        self._trials.append(trial)
        self._features.append(self.encoding.encode(trial.pipeline))

    def note(self, proposal: Proposal) -> None:
        self._unseen -= {stage.kind for stage in proposal.pipeline}
        if self._opens_batch(proposal.number):
            self._to_fit = len(self._trials)

    def suggest(self, rng: np.random.Generator) -> Suggestion | None:
        if self.number <= max(self.options.initial, len(self.problem.initial)):
            return self._founder(rng)
        known = len(self._trials) if self._opens_batch(self.number) else self._to_fit
        hyperparameters = self._hyperparameters(known)
        return self._improving(hyperparameters, rng) if hyperparameters else None

    def _opens_batch(self, number: int) -> bool:
        """Whether models are fitted anew for proposal `number`."""
        return (number - 1) % self.options.batch == 0

    def _founder(self, rng: np.random.Generator) -> Suggestion | None:
        """A random pipeline with a kind of stage not seen yet, while there is one."""
        for _ in range(TRIES):
            pipeline = self.problem.space.sample(rng)
            if not self._unseen or any(s.kind in self._unseen for s in pipeline):
                return Suggestion(pipeline, RANDOM)
        return None

    def _hyperparameters(self, known: int) -> dict[str, Hyperparameters]:
        """By quantity, learnt from the first `known` trials; none while these are too few."""
        if sum(map(self.scaling.usable, self._trials[:known])) < FEWEST:
            return {}
        if self._fitted[0] != known:
            from petra.search.bayes.gaussian import fit

            rows = remembered(self._trials[:known], self.scaling, MOST_FITTED)
            features = np.stack([self._features[i] for i in rows])
            sampled = self.options.inference == "nuts"
            taught = lessons(self.scaling, [self._trials[i] for i in rows])
            self._fitted = (
                known,
                {
                    name: fit(
                        features[lesson.rows],
                        lesson,
                        sampled=sampled,
                        seed=derive_seed(self.problem.seed, self.stream, "fit", known, name),
                    )
                    for name, lesson in taught.items()
                },
            )
        return self._fitted[1]

    def _improving(
        self, hyperparameters: dict[str, Hyperparameters], rng: np.random.Generator
    ) -> Suggestion | None:
        """The best pipeline that a local search finds, given all that was told and is under way."""
        from petra.search.bayes.gaussian import Posterior
        from petra.search.bayes.improvement import Improvement

        rows = remembered(self._trials, self.scaling, MOST_GIVEN)
        features = np.stack([self._features[i] for i in rows])
        posteriors = {
            name: Posterior(hyperparameters[name], features[lesson.rows], lesson)
            for name, lesson in lessons(self.scaling, [self._trials[i] for i in rows]).items()
            if name in hyperparameters
        }
        objectives = [posteriors.pop(o.metric) for o in self.problem.objectives]
        under_way = [self.encoding.encode(p) for p in self._awaited.values()]
        front = self._front()
        kept = [self._features[i] for i in front if self.scaling.violation(self._trials[i]) == 0]
        points = np.array([*kept, *under_way]).reshape(-1, len(self.encoding))
        improvement = Improvement(objectives, list(posteriors.values()), points, rng)
        walk = Walk(
            self.problem.space,
            self._moves,
            self.encoding,
            [*self._features, *under_way],
            rng,
        )
        found = walk.best(
            improvement,
            {self._trials[i].number: self._trials[i].pipeline for i in front},
            restarts=self.options.restarts,
            evaluations=self.options.evaluations,
        )
        if found is None:
            return None
        return Suggestion(found.pipeline, Origin(("improvement",), found.parent))

    def _front(self) -> Sequence[int]:
        """Indices of the front of the trials told; of a long one those that contribute most."""
        usable = [i for i, t in enumerate(self._trials) if self.scaling.usable(t)]
        costs = np.array([self.scaling.costs(self._trials[i]) for i in usable])
        violations = np.array([self.scaling.violation(self._trials[i]) for i in usable])
        on = np.flatnonzero(front_mask(costs, violations))
        most = MOST_ON_FRONT.get(costs.shape[1], min(MOST_ON_FRONT.values()))
        reference = self.scaling.reference
        best = survivors(costs[on], most, reference=reference, violations=violations[on])
        return [usable[int(i)] for i in on[best]]
