"""Asynchronous successive halving for several objectives: many pipelines on a share of their
training, the best of them on more of it (MO-ASHA, Schmucker et al. 2021, arXiv 2106.12639).

A wrapper: which pipelines are tried, any other searcher decides; at which fidelity, this one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from petra.core.errors import ConfigError, did_you_mean
from petra.core.pipeline import Pipeline, StageSpec
from petra.core.trial import FULL, Fidelity, Origin, Proposal, Trial
from petra.moo.selection import best_first
from petra.search.base import Problem, Searcher, Suggestion
from petra.search.options import SearchOptions, option
from petra.search.scaling import Scaling, scale
from petra.search.table import SEARCHERS, make_searcher
from petra.space.domains import BOOLEAN, Choice, Integer, Text

PROMOTED = Origin(("promoted",))
PATIENCE = 100  # a rung is ranked anew when it has grown by one in so many, at least by `eta`
EFFORT = "epochs"  # how the names of parameters begin that say how long a stage trains


@dataclass(frozen=True)
class AshaOptions(SearchOptions):
    """Options of `AshaSearcher`."""

    proposals: str = option(
        "evolution", Text("evolution", "a searcher's name"), "which searcher proposes pipelines"
    )
    eta: int = option(
        3, Integer(2, 100), "one in so many is promoted; a rung has so many times the last one's"
    )
    shares: int = option(
        2, Integer(0, 10), "rungs with a share of the training: 2 are 1/9 and 1/3 at an eta of 3"
    )
    zero_shot: bool = option(True, BOOLEAN, "whether the lowest rung is one without any training")
    share_of: str = option("epochs", Choice(("epochs", "data")), "what there is a share of")
    enough: int = option(
        8, Integer(1, 10_000), "results that a rung has before its searcher proposes"
    )

    def rungs(self) -> tuple[Fidelity, ...]:
        """The fidelities, the lowest first; the last is full."""
        shares = [self.eta**-n for n in range(self.shares, 0, -1)]
        lowest = (Fidelity(zero_shot=True),) if self.zero_shot else ()
        return (*lowest, *(Fidelity(**{self.share_of: s}) for s in shares), FULL)


def trains(stage: StageSpec) -> bool:
    """Whether a stage has epochs to train, by what its parameters are called."""
    return any(
        name.startswith(EFFORT) and float(value) > 0
        for name, value in stage.params.items()
        if isinstance(value, int | float)
    )


class Rung:
    """The pipelines evaluated at one fidelity, and a searcher that knows their results alone, as if
    there were no other fidelity: what is measured alike is compared.
    """

    def __init__(self, fidelity: Fidelity, searcher: Searcher, scaling: Scaling, eta: int) -> None:
        self.fidelity, self.searcher = fidelity, searcher
        self.told = 0
        self._scaling, self._eta = scaling, eta
        self._usable: list[Pipeline] = []
        self._costs: list[np.ndarray] = []  # of these, (m,) each
        self._violations: list[float] = []
        self._due = eta  # how many are told when they are ranked next
        self._promoted: set[str] = set()
        self._ranked: list[Pipeline] = []  # of the best, those not promoted yet, the best first

    def made(self, proposal: Proposal) -> None:
        self.searcher.restore(replace(proposal, fidelity=FULL, told=()))

    def learn(self, trial: Trial, *, ranked: bool) -> None:
        """A result; one that is not `ranked` teaches the searcher, and is not promoted."""
        alike = replace(trial, fidelity=FULL)
        self.searcher.tell(alike)
        self.told += ranked
        if ranked and self._scaling.usable(alike):
            self._usable.append(trial.pipeline)
            self._costs.append(self._scaling.costs(trial))
            self._violations.append(self._scaling.violation(trial))
        if ranked and self.told >= self._due:
            self._rank()
            self._due = self.told + max(self._eta, self.told // PATIENCE)

    def promote(self, pipeline: Pipeline) -> None:
        """It is evaluated at a higher fidelity."""
        self._promoted.add(pipeline.key)
        self._ranked = [p for p in self._ranked if p != pipeline]

    def best(self) -> Pipeline | None:
        """The pipeline to promote, None where none is good enough yet."""
        return self._ranked[0] if self._ranked else None

    def _rank(self) -> None:
        """The best so many of all, by non-dominated rank, within a rank by hypervolume
        contribution; in their order, those not promoted yet.
        """
        if not self._usable:
            return
        best = best_first(
            self._costs,
            reference=self._scaling.reference,
            violations=self._violations,
            most=self.told // self._eta,
        )
        chosen = [self._usable[i] for i in best]
        self._ranked = [p for p in chosen if p.key not in self._promoted]


class AshaSearcher(Searcher):
    """Successive halving: one in `eta` of the pipelines evaluated at a fidelity is evaluated at the
    next higher one, the best first, by non-dominated rank and hypervolume contribution; where none
    is to be promoted, a new pipeline begins at the lowest. Nobody waits for a rung to fill; the
    price is that some are promoted that later ones surpass, so it is more than one in `eta`.

    What is promoted goes on training from where it was stopped. Pipelines without any training are
    evaluated in full at once, since every fidelity of theirs is the same. New pipelines come from a
    searcher of the highest rung that has `enough` results, which is told the results of that rung.

    When it helps: where training is most of what a candidate costs, and a short one tells the good
    from the bad. When it does not: where exporting and timing cost as much (zero shot is no cheaper
    then), and with few trials, most of which never reach full fidelity. Costs: those of the
    searchers it asks, and now and then a ranking of a rung.
    """

    Options = AshaOptions
    stream = "asha"

    def __init__(
        self, problem: Problem, baseline: Trial, options: AshaOptions | None = None
    ) -> None:
        super().__init__(problem, baseline)
        self.options = options or AshaOptions()
        name = self.options.proposals
        if name not in SEARCHERS or issubclass(SEARCHERS.get(name), AshaSearcher):
            others = sorted(set(SEARCHERS.names()) - {"asha"})
            raise ConfigError(f"search.proposals: got {name!r}", hint=did_you_mean(name, others))
        scaling = scale(problem.objectives, problem.constraints, baseline)
        inner = replace(problem, initial=())
        self.rungs = tuple(
            Rung(at, make_searcher(name, {}, inner, baseline), scaling, self.options.eta)
            for at in self.options.rungs()
        )
        self._levels = {rung.fidelity: i for i, rung in enumerate(self.rungs)}
        self._level: dict[int, int] = {}  # of proposals not told: number -> rung

    @property
    def generation(self) -> int:
        return self.rungs[-1].searcher.generation

    def suggest(self, rng: np.random.Generator) -> Suggestion | None:
        for level in range(len(self.rungs) - 2, -1, -1):
            best = self.rungs[level].best()
            if best is not None:
                return Suggestion(best, PROMOTED, self.rungs[level + 1].fidelity)
        made = self._proposer().suggest(rng)
        return made and replace(made, fidelity=self._first(made.pipeline))

    def note(self, proposal: Proposal) -> None:
        level = self._levels.get(proposal.fidelity)
        if level is None:
            return  # an earlier version's, or another searcher's
        self._level[proposal.number] = level
        for rung in self._concerned(level, proposal.pipeline):
            rung.made(proposal)
        for rung in self.rungs[:level]:
            rung.promote(proposal.pipeline)

    def learn(self, trial: Trial) -> None:
        level = self._level.pop(trial.number, None)
        if level is None:
            return
        for rung in self._concerned(level, trial.pipeline):
            rung.learn(trial, ranked=rung is self.rungs[level])
        self.stop_reason = self.stop_reason or self.rungs[-1].searcher.stop_reason

    def _concerned(self, level: int, pipeline: Pipeline) -> tuple[Rung, ...]:
        """The rungs that a result of `level` is one of: all, for what is the same at any."""
        return self.rungs[level : level + 1] if any(map(trains, pipeline)) else self.rungs

    def _first(self, pipeline: Pipeline) -> Fidelity:
        """Where a new pipeline begins; what is known in full does not."""
        known = not self.is_new(pipeline, FULL)
        return FULL if known or not any(map(trains, pipeline)) else self.rungs[0].fidelity

    def _proposer(self) -> Searcher:
        """The searcher of the highest rung that has enough results; of the lowest, till then."""
        able = [rung for rung in self.rungs if rung.told >= self.options.enough]
        return (able[-1] if able else self.rungs[0]).searcher
