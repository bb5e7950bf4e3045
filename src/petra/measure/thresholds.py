"""Which latencies would change what a candidate is worth, among what it is up against."""

from __future__ import annotations

from petra.core.objective import Metrics, Objective, baseline_value
from petra.core.rivals import Rivals

_RACED = ("latency_ratio", "latency_ms")


def latency_thresholds(rivals: Rivals, known: Metrics) -> tuple[float, ...] | None:
    """Latency ratios to the untouched model, ascending, on one side of which the candidate is worth
    another thing than on the other, by the metrics of it that are `known` without timing: it meets
    a constraint or not, is dominated by a rival or not, dominates it or not.

    None where objectives or constraints are about a percentile, which wants all the calls there
    are.
    """
    named = {o.metric for o in rivals.objectives} | {c.metric for c in rivals.constraints}
    if "latency_p95_ms" in named:
        return None
    found = set()
    for constraint in rivals.constraints:
        if constraint.metric in _RACED:
            bound = constraint.bound(rivals.baseline)
            found.add(bound / baseline_value(constraint.metric, rivals.baseline))
    if any(o.metric in _RACED for o in rivals.objectives):
        others = [o for o in rivals.objectives if o.metric not in _RACED and o.metric in known]
        found |= {
            rival["latency_ratio"].mean
            for rival in rivals.front
            if _comparable(others, known, rival)
        }
    return tuple(sorted(found))


def _comparable(others: list[Objective], known: Metrics, rival: Metrics) -> bool:
    """Whether one of both may dominate the other: neither is better in some objective while the
    other is better in another.
    """
    costs = [(o.cost(known), o.cost(rival)) for o in others if o.metric in rival]
    return not (any(a < b for a, b in costs) and any(a > b for a, b in costs))
