"""What is believed of pipelines before any was tried: linear models of features that mean the same
in every space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from petra.core.errors import ConfigError
from petra.core.pipeline import Pipeline, StageSpec
from petra.search.durations import trained_epochs

WORKS = "works"  # the name of the model of not failing
LARGEST = 1e6  # magnitude of a coefficient, and of a feature
MOST_TERMS = 20_000


def features(pipeline: Pipeline) -> dict[str, float]:
    """Named numbers of a pipeline; what it does not have is left out.

    - "epochs": of all its training, as log(1 + epochs)
    - "prune.structured": that the stage occurs; "... again": more than once; "... then epochs": how
      much training comes after the last of it
    - "lowrank.svd > distill": the first of one comes before the first of the other
    - of the last stage of a kind "prune.structured.ratio", and where it is positive "log
      prune.structured.ratio"; "prune.structured.importance=lamp" for what is not a number
    """
    found: dict[str, float] = {}
    kinds = [stage.kind for stage in pipeline]
    after = 0.0
    for stage in reversed(pipeline.stages):
        if stage.kind not in found:
            found[stage.kind] = 1.0
            if kinds.count(stage.kind) > 1:
                found[f"{stage.kind} again"] = 1.0
            found[f"{stage.kind} then epochs"] = math.log1p(after)
            found |= _settings(stage)
        after += trained_epochs(stage)
    for earlier, later in combinations(dict.fromkeys(kinds), 2):
        found[f"{earlier} > {later}"] = 1.0
    found["epochs"] = math.log1p(after)
    return found


def _settings(stage: StageSpec) -> dict[str, float]:
    found = {}
    for name, value in stage.params.items():
        if "." in name:  # of one of this model's own layers
            continue
        if isinstance(value, bool | str):
            found[f"{stage.kind}.{name}={value}"] = 1.0
        else:
            found[f"{stage.kind}.{name}"] = max(-LARGEST, min(float(value), LARGEST))
            if value > 0:
                found[f"log {stage.kind}.{name}"] = math.log(value)
    return found


@dataclass(frozen=True)
class Linear:
    """A sum of slope * x + offset over those features x of a pipeline that it has terms for, each
    a pair by the feature's name.
    """

    terms: Mapping[str, tuple[float, float]]

    def predict(self, found: Mapping[str, float]) -> float:
        """Its opinion of a pipeline with these features."""
        total = 0.0
        for name, x in found.items():
            term = self.terms.get(name)
            if term is not None:
                total += term[0] * x + term[1]
        return total

    def plus(self, other: Linear, share: float = 1.0) -> Linear:
        """The sum of this and `share` of the other."""
        terms = dict(self.terms)
        for name, (slope, offset) in other.terms.items():
            mine = terms.get(name, (0.0, 0.0))
            terms[name] = (mine[0] + share * slope, mine[1] + share * offset)
        return Linear(terms)


@dataclass(frozen=True)
class Prior:
    """A `Linear` for each metric that it has an opinion of, and for `WORKS`.

    Opinions of a metric are costs, low is good, on a scale on which the pipelines that they were
    learnt from have mean 0 and variance 1; of `WORKS` high is good. A searcher finds out from its
    own trials how much they are worth.
    """

    models: Mapping[str, Linear]

    def predict(self, pipeline: Pipeline, names: tuple[str, ...]) -> list[float]:
        """Opinions of a pipeline, one for each name; 0 where there is no model."""
        found = features(pipeline)
        known = [self.models.get(name) for name in names]
        return [0.0 if model is None else model.predict(found) for model in known]

    def as_dict(self) -> dict[str, dict[str, list[float]]]:
        """Plain data for JSON; `from_dict` reads it back."""
        return {
            name: {term: [float(f"{x:.4g}") for x in pair] for term, pair in model.terms.items()}
            for name, model in self.models.items()
        }

    @staticmethod
    def from_dict(data: object) -> Prior:
        """Raises ConfigError for anything else than `as_dict` gives."""
        if not isinstance(data, Mapping):
            raise ConfigError(f"a prior is a mapping, got {type(data).__name__}")
        models = {}
        for name, terms in data.items():
            if not isinstance(terms, Mapping) or len(terms) > MOST_TERMS:
                raise ConfigError("a model of a prior is a mapping, and not a large one")
            models[str(name)] = Linear({str(term): _pair(pair) for term, pair in terms.items()})
        return Prior(models)


def _pair(value: object) -> tuple[float, float]:
    if isinstance(value, list) and len(value) == 2:
        slope, offset = value
        if all(type(x) in (int, float) and abs(x) <= LARGEST for x in (slope, offset)):
            return float(slope), float(offset)
    raise ConfigError("a term of a prior is two finite numbers")
