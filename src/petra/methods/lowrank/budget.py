"""Ranks under a budget: spent where the predictions miss it most."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from petra.core.errors import StageRefused
from petra.methods.lowrank.decomposition import Decomposition, Ranks
from petra.methods.lowrank.rank import allocate
from petra.methods.lowrank.truncation_cost import prediction_distances
from petra.methods.lowrank.work import Work

LEVELS = (1.0, 0.75, 0.5, 0.3, 0.15)  # of the largest saving rank: where distances are measured
MEASURED_ITEMS = 128


def spread_budget(
    work: Work, parts: Mapping[str, Decomposition], share: float, cost: str
) -> dict[str, Ranks]:
    """Measure what truncating each layer alone does to the predictions, then find the ranks
    that cost no more than the budget with the least sum of these distances. (Small ones add up
    well; where a harsh budget makes all of them large, the sum says little.)
    """
    options: dict[str, list[Ranks]] = {}
    for path, part in parts.items():
        top = next(part.shares(), None)
        if top is not None and getattr(part.dense, cost):
            levels = (part.at(top * level) for level in LEVELS)
            options[path] = [ranks for ranks in dict.fromkeys(levels) if part.saves(ranks)]
    distances = prediction_distances(
        work.model,
        list(work.batches(MEASURED_ITEMS)),
        {
            path: [partial(parts[path].approximation, ranks) for ranks in choices]
            for path, choices in options.items()
        },
        work.context.progress,
        work.context.task.judged,
    )
    dense: dict[str, int] = {path: getattr(parts[path].dense, cost) for path in options}
    costs = [
        [dense[p], *(getattr(parts[p].cost(r), cost) for r in ranks)]
        for p, ranks in options.items()
    ]
    picks = allocate(costs, [[0.0, *distances[p]] for p in options], share * sum(dense.values()))
    if picks is None:
        least = sum(map(min, costs)) / sum(dense.values())
        raise StageRefused(
            f"a budget of {share:g} of the {cost} is out of reach",
            hint=f"the {len(options)} layers that can be decomposed need at least {least:.2f}",
        )
    chosen = zip(options.items(), picks, strict=True)
    return {path: ranks[pick - 1] for (path, ranks), pick in chosen if pick > 0}
