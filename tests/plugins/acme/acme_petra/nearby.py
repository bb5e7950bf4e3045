from numpy.random import Generator

from petra.plugins import Origin, Searcher, Suggestion, Trial
from petra.space.moves import PERTURB


class Nearby(Searcher):
    """Every other pipeline is drawn at random; those between are near the best one so far by the
    first objective."""

    stream = "acme.nearby"  # of its random numbers
    best: Trial | None = None

    def learn(self, trial: Trial) -> None:
        if trial.comparable and (self.best is None or self.cost(trial) < self.cost(self.best)):
            self.best = trial

    def cost(self, trial: Trial) -> float:
        return self.problem.objectives[0].cost(trial.metrics)

    def suggest(self, rng: Generator) -> Suggestion:
        space = self.problem.space
        if self.best is not None and self.number % 2:
            child = PERTURB.child(self.best.pipeline, space, rng)
            if child is not None:
                return Suggestion(child, Origin(("perturb",), self.best.number))
        return Suggestion(space.sample(rng), Origin(("draw",)))
