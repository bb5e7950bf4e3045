"""How a search went: its progress in hypervolume, and what its moves were good for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from petra.core.trial import Trial
from petra.front import Front
from petra.moo.archive import Archive
from petra.search.scaling import Scaling, scale

Reached = Sequence[tuple[Trial, float]]


def hypervolume_reached(front: Front) -> Reached:
    """Hypervolume of the feasible trials after each measured one, in order of finishing; the
    untouched model first.
    """
    if front.baseline is None:
        return []
    scaling: Scaling = scale(front.objectives, front.constraints, front.baseline)
    archive = Archive(scaling.reference)
    reached: list[tuple[Trial, float]] = []
    for trial in sorted(front.trials, key=lambda t: (t.finished_at, t.number)):
        if scaling.usable(trial) and scaling.violation(trial) == 0:
            archive.add(trial.number, scaling.costs(trial))
        reached.append((trial, archive.volume))
    return reached


def move_counts(reached: Reached) -> list[tuple[str, int, int]]:
    """(move, trials it took part in, how many of these extended the hypervolume), most used first.

    A trial made by two moves counts for both.
    """
    proposed: Counter[str] = Counter()
    succeeded: Counter[str] = Counter()
    before = 0.0
    for trial, volume in reached:
        for move in trial.origin.moves if trial.number else ():
            proposed[move] += 1
            succeeded[move] += volume > before
        before = volume
    return [(move, count, succeeded[move]) for move, count in proposed.most_common()]
