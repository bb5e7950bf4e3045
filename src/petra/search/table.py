"""The table of searchers. A new searcher is one new file and one line here."""

from __future__ import annotations

from collections.abc import Mapping

from petra.core.announced import subclass_of
from petra.core.registry import Registry
from petra.core.trial import Trial
from petra.search.base import Problem, Searcher
from petra.search.options import read_options

SEARCHERS: Registry[type[Searcher]] = Registry(
    "searcher",
    {
        "surrogate": "petra.search.surrogate.searcher:SurrogateSearcher",
        "uniform": "petra.search.uniform:UniformSearcher",
        "evolution": "petra.search.evolution:EvolutionSearcher",
        "optuna": "petra.search.optuna_search:OptunaSearcher",
        "bayes": "petra.search.bayes.searcher:BayesSearcher",
        "asha": "petra.search.asha:AshaSearcher",
        "structure_first": "petra.search.structure_first:StructureFirstSearcher",
    },
    group="petra.searchers",
    check=subclass_of("petra.search.base:Searcher", named=False),
)


def make_searcher(
    name: str,
    options: Mapping[str, object],
    problem: Problem,
    baseline: Trial,
    *,
    where: str = "search",
) -> Searcher:
    """The searcher called `name` with `options` as plain data.

    Raises ConfigError, beginning with the path `where`, for an unknown name, option or value.
    """
    kind = SEARCHERS.get(name)
    return kind(problem, baseline, read_options(kind.Options, options, where=where))
