"""What noise leaves open about a front: which members cannot be told from a better one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from petra.core.measurement import Measurement
from petra.core.metric import QUALITY, describe
from petra.core.objective import Objective
from petra.core.trial import Trial
from petra.front import Front, confirmed

Pair = tuple[int, int]


def doubtful_pairs(front: Front) -> Iterator[tuple[Trial, Trial]]:
    """Members of the front, each with another that is certainly better in some cost and certainly
    worse in none: only its quality can be what the first is kept for.

    Certain is a difference beyond the 95% interval; what is counted has none.
    """
    costs = [o for o in front.objectives if not describe(o.metric).sampled]
    for one in front.members:
        for other in front.members:
            signs = [_certainly(o, other, one) for o in costs]
            if one is not other and max(signs, default=0) > 0 and min(signs) >= 0:
                yield one, other


def _certainly(objective: Objective, one: Trial, other: Trial) -> int:
    """1: `one` costs certainly less than `other`, -1: more, 0: neither is certain."""
    a, b = confirmed(one, objective.metric), confirmed(other, objective.metric)
    difference = (b.mean - a.mean) * (-1 if objective.maximize else 1)
    if abs(difference) <= 1.96 * math.hypot(a.stderr, b.stderr):
        return 0
    return 1 if difference > 0 else -1


def no_better(front: Front, differences: Mapping[Pair, Measurement]) -> dict[int, int]:
    """Members whose quality cannot be told from that of a model with lower costs: their number ->
    that model's, the one of lowest number.

    `differences` has, by numbers, how much more quality the first of a doubtful pair has than the
    second, paired by item. A front without quality among its objectives has only costs to go by.
    """
    up = front.maximize_quality
    by_quality = any(o.metric == QUALITY for o in front.objectives)
    found: dict[int, int] = {}
    for one, other in doubtful_pairs(front):
        pair = one.number, other.number
        if by_quality:
            if pair not in differences:
                continue
            low, high = differences[pair].interval
            if (low > 0) if up else (high < 0):
                continue
        found.setdefault(*pair)
    return found
