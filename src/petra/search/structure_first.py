"""Which parts a pipeline has first, how large they are next: two searches, one after the other.

A wrapper: pipelines are any other searcher's; of which part of the space, this one decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from petra.core.errors import ConfigError, did_you_mean
from petra.core.trial import Origin, Proposal, Trial
from petra.moo.selection import best_first
from petra.search.base import RANDOM, Problem, Searcher, Suggestion
from petra.search.options import SearchOptions, option
from petra.search.scaling import Scaling, scale
from petra.search.structure import (
    Structure,
    has_sizes,
    lies_in,
    sizes,
    structure_of,
    structures,
)
from petra.search.table import SEARCHERS, make_searcher
from petra.space.domains import Integer, Text
from petra.space.space import Space

T = TypeVar("T", Proposal, Trial)
TRIES = 3  # suggestions of a part before it is taken as used up
WRAPPERS = ("asha", "structure_first")


@dataclass(frozen=True)
class StructureFirstOptions(SearchOptions):
    """Options of `StructureFirstSearcher`."""

    proposals: str = option(
        "surrogate", Text("surrogate", "a searcher's name"), "which searcher proposes pipelines"
    )
    bits: int = option(
        40, Integer(1, 10_000), "proposals in which every part has one size, or is not there"
    )
    structures: int = option(3, Integer(1, 100), "of the best structures, how many get their sizes")


class Part:
    """A searcher of a part of the space. It knows those trials alone that lie in that part, and
    numbers them as if there were no others.
    """

    def __init__(self, name: str, problem: Problem, baseline: Trial) -> None:
        self.space = problem.space
        self.searcher = make_searcher(name, {}, replace(problem, initial=()), baseline)
        self._here = {baseline.number: baseline.number}  # its numbers, by those of the study
        self._there = [baseline.number]

    def knows(self, number: int) -> bool:
        return number in self._here

    def made(self, proposal: Proposal) -> None:
        """A proposal was made; one that lies elsewhere is nothing to it."""
        if lies_in(self.space, proposal.pipeline):
            self._here[proposal.number] = self.searcher.number
            self._there.append(proposal.number)
            self.searcher.restore(replace(self._renumbered(proposal), told=()))

    def learn(self, trial: Trial) -> None:
        if self.knows(trial.number):
            self.searcher.tell(self._renumbered(trial))

    def suggest(self, rng: np.random.Generator) -> Suggestion:
        made = self.searcher.suggest(rng)
        if made is None:
            return Suggestion(self.space.sample(rng), RANDOM)
        parent = made.origin.parent
        there = None if parent is None else self._there[parent]
        return replace(made, origin=Origin(made.origin.moves, there))

    def _renumbered(self, item: T) -> T:
        parent = item.origin.parent
        here = None if parent is None else self._here.get(parent)
        origin = Origin(item.origin.moves, here)
        return replace(item, number=self._here[item.number], origin=origin)


class StructureFirstSearcher(Searcher):
    """The first `bits` proposals search structure (`petra.search.structure`): blocks and parts are
    on or off, what is on has its middle size, and all else is at its default. Of the best
    `structures` of them, by non-dominated rank and hypervolume contribution, each is then searched
    for sizes and everything else, in turns, by a searcher that has been told what is known of it.

    The two decisions are hard to take at once where none is one of many sizes: a draw among eleven
    hardly ever leaves a part out, and a step to 0 is both a smaller size and another structure
    (BIPEFT, Chang et al. 2024, who alternate between the two by gradients).

    When it helps: spaces of parts that may be absent, such as modules of adapters, and few trials.
    When it does not: spaces without such sizes, of which the first half tries the default values
    alone; where good structure depends on sizes. Costs: those of the searchers it asks.
    """

    Options = StructureFirstOptions
    stream = "structure first"

    def __init__(
        self, problem: Problem, baseline: Trial, options: StructureFirstOptions | None = None
    ) -> None:
        super().__init__(problem, baseline)
        self.options = options or StructureFirstOptions()
        name = self.options.proposals
        if name not in SEARCHERS or name in WRAPPERS:
            others = sorted(set(SEARCHERS.names()) - set(WRAPPERS))
            raise ConfigError(f"search.proposals: got {name!r}", hint=did_you_mean(name, others))
        self._scaling = scale(problem.objectives, problem.constraints, baseline)
        self._parts: list[Part] = [self._part(structures(problem.space))]
        self._made: list[Proposal] = []
        self._told: list[Trial] = []

    @property
    def generation(self) -> int:
        return self._parts[0].searcher.generation

    def suggest(self, rng: np.random.Generator) -> Suggestion | None:
        if self._first(self.number):
            turn = self._parts[:1]
        else:
            self._open()
            later, at = self._parts[1:], self.number % (len(self._parts) - 1)
            turn = [*later[at:], *later[:at]]
        for part in turn:  # the next where one is used up
            for _ in range(TRIES):
                made = part.suggest(rng)
                if self.is_new(made.pipeline, made.fidelity):
                    return made
        return Suggestion(self.problem.space.sample(rng), RANDOM)

    def note(self, proposal: Proposal) -> None:
        if not self._first(proposal.number):
            self._open()
        self._made.append(proposal)
        for part in self._parts:
            part.made(proposal)

    def learn(self, trial: Trial) -> None:
        self._told.append(trial)
        for part in self._parts:
            part.learn(trial)

    def _first(self, number: int) -> bool:
        return number <= max(self.options.bits, len(self.problem.initial))

    def _part(self, space: Space) -> Part:
        return Part(self.options.proposals, replace(self.problem, space=space), self.baseline)

    def _open(self) -> None:
        """Begin with sizes, once: a function of what was told before the first such proposal."""
        if len(self._parts) > 1:
            return
        best = best_structures(
            self.problem.space, self._scaling, self._told, self.options.structures
        )
        spaces = [sizes(self.problem.space, s) for s in best] or [self.problem.space]
        for part in map(self._part, spaces):
            for proposal in self._made:
                part.made(proposal)
            for trial in self._told:
                part.learn(trial)
            self._parts.append(part)


def best_structures(
    space: Space, scaling: Scaling, trials: Sequence[Trial], most: int
) -> list[Structure]:
    """The structures of the best trials, the best first: by non-dominated rank, within a rank by
    hypervolume contribution, then the earlier one. Those that have sizes, unless none has.
    """
    usable = [t for t in trials if scaling.usable(t)]
    if not usable:
        return []
    order = best_first(
        [scaling.costs(t) for t in usable],
        reference=scaling.reference,
        violations=[scaling.violation(t) for t in usable],
    )
    found = list(dict.fromkeys(structure_of(space, usable[i].pipeline) for i in order))
    return ([s for s in found if has_sizes(space, s)] or found)[:most]
