"""Evolution of pipelines by mutation alone, after PETRA (arXiv 2510.09566).

A (mu + 1) strategy: parents by binary tournament, children by local, global and structural moves
whose probabilities follow their success, survivors by Pareto rank and hypervolume contribution.
There is no crossover. A child is made as soon as there is room for it, from results that are
`offspring` trials old; *generation* is a word for `offspring` trials. Each of these parts has an
option that switches it off or puts the usual alternative in its place, to see what it is good for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from petra.core.errors import ConfigError
from petra.core.pipeline import Pipeline
from petra.core.trial import Origin, Proposal, Trial
from petra.moo.archive import Archive
from petra.moo.dominance import ranks
from petra.moo.hypervolume import contributions
from petra.moo.selection import Worth, crowding, survivors
from petra.search.adaptation import Adaptation
from petra.search.base import Problem, Searcher, Suggestion
from petra.search.options import SearchOptions, option
from petra.search.scaling import scale
from petra.space.domains import BOOLEAN, Choice, Integer, Real
from petra.space.moves import Move
from petra.space.table import MOVES

TRIES = 100  # attempts at one founder, or at one child that is reliable enough
STACKED = 0.15  # probability of one more move on top of the last
MOST_STACKED = 3
# Start: moves of parameters four times as likely as moves of structure.
START = {"local": 0.6, "global": 0.2, "structural": 0.2}
WORTH: dict[str, Worth] = {"hypervolume": contributions, "crowding": crowding}


@dataclass(frozen=True)
class EvolutionOptions(SearchOptions):
    """Options of `EvolutionSearcher`."""

    population: int = option(5, Integer(1, 1000), "pipelines kept as parents (mu)")
    founders: int = option(
        8, Integer(1, 1000), "pipelines drawn before the first child is made; at least `population`"
    )
    offspring: int = option(
        4, Integer(1, 1000), "pipelines under way at a time, at most; so many are a generation"
    )
    stagnation: int = option(
        20, Integer(0, 10_000), "generations without progress before the search ends; 0: never"
    )
    epsilon: float = option(
        1e-3, Real(0.0, 1.0), "relative growth of the hypervolume that counts as progress"
    )
    local_moves: bool = option(True, BOOLEAN, "mutate parameters of one stage")
    global_moves: bool = option(True, BOOLEAN, "mutate optimizer and loss in all stages at once")
    structural_moves: bool = option(True, BOOLEAN, "add, drop, replace and swap stages")
    adaptation: bool = option(True, BOOLEAN, "let probabilities of moves follow their success")
    selection: str = option(
        "hypervolume",
        Choice(("hypervolume", "crowding")),
        "what counts within a rank: hypervolume contribution or NSGA-II's crowding distance",
    )
    succession: str = option(
        "steady",
        Choice(("steady", "generational")),
        "parents are replaced after every result, or only by a whole generation of results",
    )
    constraints: bool = option(
        True, BOOLEAN, "select by constraints too; without, they only say which trials are feasible"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not any(getattr(self, f"{reach}_moves") for reach in START):
            raise ConfigError(
                "local_moves, global_moves, structural_moves: got false for all of them",
                hint="evolution needs moves to make; leave one on, or search by: uniform",
            )


@dataclass(frozen=True)
class Member:
    """What selection knows of a measured trial: its pipeline, costs (m,) and violation."""

    pipeline: Pipeline
    costs: np.ndarray
    violation: float


class EvolutionSearcher(Searcher):
    """PETRA's search. `population` holds the trial numbers of the current parents, trial 0 among
    the first.

    When it helps: spaces of varied structure, tens to thousands of trials, two to five objectives.
    When it does not: a handful of trials, where it hardly gets past its random first ones. Costs
    milliseconds a proposal, however many trials there are: it keeps the costs of the population
    and of the front alone, and the hypervolume is kept up point by point (`petra.moo.archive`).
    """

    Options = EvolutionOptions
    stream = "evolution"

    def __init__(
        self, problem: Problem, baseline: Trial, options: EvolutionOptions | None = None
    ) -> None:
        super().__init__(problem, baseline)
        self.options = options or EvolutionOptions()
        self.scaling = scale(problem.objectives, problem.constraints, baseline)
        self.population: tuple[int, ...] = (baseline.number,)
        self.moves = {
            m.name: m
            for m in MOVES.all()
            if getattr(self.options, f"{m.reach}_moves", False) and m.concerns(problem.space)
        }
        self.adaptation = Adaptation(_start_weights(list(self.moves.values())))
        self.archive = Archive(self.scaling.reference)  # the front of all trials told
        untouched = Member(baseline.pipeline, *self._judged(baseline))
        self.archive.add(baseline.number, untouched.costs, untouched.violation)
        self._kept = {baseline.number: untouched}  # those in the population, or waiting for it
        self._fitness = {baseline.number: (0, 0.0)}
        self._unseen = set(problem.space.cards)  # kinds of stage not proposed yet
        self._generation: list[Trial] = []  # told since the last one ended
        self._runs = dict.fromkeys(problem.space.cards, 0)
        self._failures = dict.fromkeys(problem.space.cards, 0)
        self._progress: list[tuple[float, float]] = []

    @property
    def lag(self) -> int:
        return self.options.offspring

    def suggest(self, rng: np.random.Generator) -> Suggestion | None:
        return self._founder(rng) if self._founding() else self._child(rng)

    def note(self, proposal: Proposal) -> None:
        self._unseen -= {stage.kind for stage in proposal.pipeline}

    def learn(self, trial: Trial) -> None:
        self._count_failure(trial)
        if self.scaling.usable(trial):
            member = Member(trial.pipeline, *self._judged(trial))
            self._kept[trial.number] = member
            self.archive.add(trial.number, member.costs, member.violation)
            if self.options.succession == "steady":
                self._select()
        self._generation.append(trial)
        if len(self._generation) == self.options.offspring:
            self._end_generation()

    def _founding(self) -> bool:
        """Whether the next proposal is one of the first, which have no parents."""
        return self.number <= max(
            self.options.founders, self.options.population, len(self.problem.initial)
        )

    def _founder(self, rng: np.random.Generator) -> Suggestion | None:
        """A random pipeline with a kind of stage not seen yet, while there is one: each method gets
        its chance.
        """
        for _ in range(TRIES):
            pipeline = self.problem.space.sample(rng)
            if not self._unseen or any(s.kind in self._unseen for s in pipeline):
                return Suggestion(pipeline, Origin(("initial",)))
        return None

    def _child(self, rng: np.random.Generator) -> Suggestion | None:
        for _ in range(TRIES):
            parent = self._tournament(rng)
            child = self._kept[parent].pipeline
            names: list[str] = []
            while len(names) < MOST_STACKED:
                moved = self._mutate(child, rng)
                if moved is None:
                    break
                name, child = moved
                names.append(name)
                if rng.random() >= STACKED:
                    break
            if names and rng.random() < self._reliability(child):
                return Suggestion(child, Origin(tuple(names), parent))
        return None

    def _tournament(self, rng: np.random.Generator) -> int:
        """The better of two parents drawn: lower rank, then higher contribution, then older."""
        pair = [self.population[int(i)] for i in rng.integers(len(self.population), size=2)]
        return min(pair, key=lambda number: (*self._fitness[number], number))

    def _mutate(self, pipeline: Pipeline, rng: np.random.Generator) -> tuple[str, Pipeline] | None:
        """One move by the current probabilities; those that cannot act here give way to the
        others.
        """
        chances = dict(self.adaptation.probabilities)
        while chances:
            names = list(chances)
            weights = np.array([chances[name] for name in names])
            name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
            child = self.moves[name].child(pipeline, self.problem.space, rng)
            if child is not None:
                return name, child
            del chances[name]
        return None

    def _reliability(self, pipeline: Pipeline) -> float:
        """Of its least reliable stage: a kind that fails again and again is proposed less often,
        never ruled out.
        """
        return min(
            (1 + self._runs[s.kind] - self._failures[s.kind]) / (1 + self._runs[s.kind])
            for s in pipeline
        )

    def _count_failure(self, trial: Trial) -> None:
        for kind in {s.kind for s in trial.pipeline}:
            self._runs[kind] = self._runs.get(kind, 0) + 1
        if trial.failure is not None and trial.failure.stage in self._failures:
            self._failures[trial.failure.stage] += 1

    def _judged(self, trial: Trial) -> tuple[np.ndarray, float]:
        violation = self.scaling.violation(trial) if self.options.constraints else 0.0
        return self.scaling.costs(trial), violation

    def _select(self) -> None:
        """Reduce what is kept to the population and rate its members for the tournament."""
        pool = sorted(self._kept)
        costs = np.array([self._kept[n].costs for n in pool])
        violations = np.array([self._kept[n].violation for n in pool])
        reference, worth = self.scaling.reference, WORTH[self.options.selection]
        kept = survivors(
            costs, self.options.population, reference=reference, violations=violations, worth=worth
        )
        costs, violations = costs[kept], violations[kept]
        self.population = tuple(pool[int(i)] for i in kept)
        self._kept = {n: self._kept[n] for n in self.population}
        rank = ranks(costs, violations)
        gain = np.zeros(len(kept))
        for r in np.unique(rank):
            gain[rank == r] = worth(costs[rank == r], reference)
        self._fitness = {n: (int(rank[i]), -float(gain[i])) for i, n in enumerate(self.population)}

    def _end_generation(self) -> None:
        if self.options.succession == "generational":
            self._select()
        worthy = {*self.population, *self.archive.members}
        if self.options.adaptation:
            self.adaptation.update(
                (move, t.number in worthy)
                for t in self._generation
                if t.origin.parent is not None
                for move in t.origin.moves
                if move in self.moves  # a study may be continued without a plugin's
            )
        self._generation = []
        self._watch_progress()

    def _watch_progress(self) -> None:
        """Stop when neither the hypervolume nor, with nothing feasible yet, the violation has
        improved lately.
        """
        self._progress.append((self.archive.volume, self.archive.violation))
        patience, factor = self.options.stagnation, 1 + self.options.epsilon
        if not patience or len(self._progress) <= patience:
            return
        (volume_then, least_then), (volume, least) = (
            self._progress[i] for i in (-1 - patience, -1)
        )
        if volume <= volume_then * factor and least * factor >= least_then:
            self.stop_reason = f"no progress in {patience} generations"


def _start_weights(moves: Sequence[Move]) -> dict[str, float]:
    """START divided evenly among the moves of each reach."""
    return {m.name: START[m.reach] / sum(n.reach == m.reach for n in moves) for m in moves}
