"""Evolution of pipelines by mutation alone, after PETRA (arXiv 2510.09566).

A (mu + lambda) strategy: parents by binary tournament, children by moves whose probabilities follow
their success, survivors by Pareto rank and hypervolume contribution. There is no crossover.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from petra.core.pipeline import Pipeline
from petra.core.rng import generator
from petra.core.trial import Origin, Proposal, Trial
from petra.moo.dominance import front_mask, ranks
from petra.moo.hypervolume import contributions
from petra.moo.selection import survivors
from petra.search.adaptation import Adaptation
from petra.search.base import Problem, Searcher
from petra.search.options import SearchOptions, option
from petra.search.scaling import scale
from petra.space.domains import Integer, Real
from petra.space.moves import MOVES, Move

# attempts at one child, and then at one random pipeline, before the space counts as used up
TRIES = 100
STACKED = 0.15  # probability of one more move on top of the last
MOST_STACKED = 3
# Start: moves of parameters four times as likely as moves of structure.
START = {"local": 0.6, "global": 0.2, "structural": 0.2}


@dataclass(frozen=True)
class EvolutionOptions(SearchOptions):
    """Options of `EvolutionSearcher`."""

    population: int = option(
        8, Integer(1, 1000), "pipelines kept as parents (mu); the first generation has as many"
    )
    offspring: int = option(8, Integer(1, 1000), "pipelines proposed per generation (lambda)")
    stagnation: int = option(
        10, Integer(0, 10_000), "generations without progress before the search ends; 0: never"
    )
    epsilon: float = option(
        1e-3, Real(0.0, 1.0), "relative growth of the hypervolume that counts as progress"
    )


class EvolutionSearcher(Searcher):
    """PETRA's search. `population` holds the trial numbers of the current parents, trial 0 among
    the first.

    When it helps: spaces of varied structure, tens to thousands of trials, any number of objectives
    up to about four. When it does not: a handful of trials, where it hardly gets past its random
    first generation. Costs milliseconds per generation.
    """

    Options = EvolutionOptions

    def __init__(
        self, problem: Problem, baseline: Trial, options: EvolutionOptions | None = None
    ) -> None:
        super().__init__(problem, baseline)
        self.options = options or EvolutionOptions()
        self.scaling = scale(problem.objectives, problem.constraints, baseline)
        self.population: tuple[int, ...] = (baseline.number,)
        self.adaptation = Adaptation(
            _start_weights([m for m in MOVES.values() if m.concerns(problem.space)])
        )
        self._usable = {baseline.number: baseline}
        self._proposed = {baseline.pipeline.key}
        self._asked: list[Proposal] = []
        self._next = 1
        self._generation = 0
        self._fitness = {baseline.number: (0, 0.0)}
        self._runs = dict.fromkeys(problem.space.cards, 0)
        self._failures = dict.fromkeys(problem.space.cards, 0)
        self._progress: list[tuple[float, float]] = []

    def ask(self) -> list[Proposal]:
        if self._asked:
            raise RuntimeError("the last generation has not been told yet")
        given = () if self._generation else self.problem.initial
        size = (
            self.options.offspring if self._generation else max(self.options.population, len(given))
        )
        for slot in range(size):
            if self.stop_reason:
                break
            rng = generator(self.problem.seed, "evolution", self._generation, slot)
            if slot < len(given):
                made: tuple[Pipeline, Origin] | None = (given[slot], Origin("given"))
            else:
                made = self._child(rng) if self._generation else self._founder(rng)
            made = made or self._stranger(rng)
            if made is None:
                self.stop_reason = "no new pipeline found: the space is used up"
                break
            pipeline, origin = made
            self._asked.append(Proposal(self._next, pipeline, origin))
            self._proposed.add(pipeline.key)
            self._next += 1
        return list(self._asked)

    def tell(self, trials: Sequence[Trial]) -> None:
        if [(t.number, t.pipeline) for t in trials] != [
            (p.number, p.pipeline) for p in self._asked
        ]:
            raise ValueError(
                "tell() takes all trials of the generation last asked for, sorted by number"
            )
        fresh = [t for t in trials if self.scaling.usable(t)]
        self._usable.update((t.number, t) for t in fresh)
        self._count_failures(trials)
        self._select([*self.population, *(t.number for t in fresh)])
        worthy = {*self.population, *self._front()}
        self.adaptation.update(
            (move, p.number in worthy)
            for p in self._asked
            if p.origin.parent is not None
            for move in _moves_of(p)
        )
        self._asked = []
        self._generation += 1
        self._watch_progress()

    def _founder(self, rng: np.random.Generator) -> tuple[Pipeline, Origin] | None:
        """A random pipeline with a kind of stage not seen yet, while there is one: each method gets
        its chance.
        """
        missing = self.problem.space.cards.keys() - {
            s.kind for p in self._asked for s in p.pipeline
        }
        for _ in range(TRIES):
            pipeline = self.problem.space.sample(rng)
            if pipeline.key not in self._proposed and (
                not missing or any(s.kind in missing for s in pipeline)
            ):
                return pipeline, Origin("initial")
        return None

    def _child(self, rng: np.random.Generator) -> tuple[Pipeline, Origin] | None:
        for _ in range(TRIES):
            parent = self._tournament(rng)
            child = self._usable[parent].pipeline
            names: list[str] = []
            while len(names) < MOST_STACKED:
                moved = self._mutate(child, rng)
                if moved is None:
                    break
                name, child = moved
                names.append(name)
                if rng.random() >= STACKED:
                    break
            if child.key not in self._proposed and rng.random() < self._reliability(child):
                return child, Origin("+".join(names), parent)
        return None

    def _stranger(self, rng: np.random.Generator) -> tuple[Pipeline, Origin] | None:
        for _ in range(TRIES):
            pipeline = self.problem.space.sample(rng)
            if pipeline.key not in self._proposed:
                return pipeline, Origin("random")
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
            child = MOVES[name].apply(pipeline, self.problem.space, rng)
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

    def _count_failures(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            for kind in {s.kind for s in trial.pipeline}:
                self._runs[kind] += 1
            if trial.failure is not None and trial.failure.stage in self._failures:
                self._failures[trial.failure.stage] += 1

    def _arrays(self, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        trials = [self._usable[n] for n in numbers]
        return np.array([self.scaling.costs(t) for t in trials]), np.array(
            [self.scaling.violation(t) for t in trials]
        )

    def _select(self, pool: Sequence[int]) -> None:
        """Reduce the pool to the population and rate its members for the tournament."""
        costs, violations = self._arrays(pool)
        reference = self.scaling.reference
        kept = survivors(costs, self.options.population, reference=reference, violations=violations)
        costs, violations = costs[kept], violations[kept]
        self.population = tuple(pool[int(i)] for i in kept)
        rank = ranks(costs, violations)
        gain = np.zeros(len(kept))
        for r in np.unique(rank):
            gain[rank == r] = contributions(costs[rank == r], reference)
        self._fitness = {n: (int(rank[i]), -float(gain[i])) for i, n in enumerate(self.population)}

    def _front(self) -> list[int]:
        """Numbers of the front of all trials so far, without later copies of the same point."""
        numbers = sorted(self._usable)
        costs, violations = self._arrays(numbers)
        front = np.flatnonzero(front_mask(costs, violations))
        first = np.unique(costs[front], axis=0, return_index=True)[1]
        return [numbers[int(front[i])] for i in first]

    def _watch_progress(self) -> None:
        """Stop when neither the hypervolume nor, with nothing feasible yet, the violation has
        improved lately.
        """
        volume = self.scaling.hypervolume(self._usable.values())
        least = min(self.scaling.violation(t) for t in self._usable.values())
        self._progress.append((volume, least))
        patience, factor = self.options.stagnation, 1 + self.options.epsilon
        if not patience or len(self._progress) <= patience:
            return
        volume_then, least_then = self._progress[-1 - patience]
        if volume <= volume_then * factor and least * factor >= least_then:
            self.stop_reason = f"no progress in {patience} generations"


def _moves_of(proposal: Proposal) -> list[str]:
    return proposal.origin.move.split("+")


def _start_weights(moves: Sequence[Move]) -> dict[str, float]:
    """START divided evenly among the moves of each reach."""
    return {m.name: START[m.reach] / sum(n.reach == m.reach for n in moves) for m in moves}
