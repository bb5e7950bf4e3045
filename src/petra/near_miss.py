"""Of trials that all break some constraint: which one binds, the nearest miss, what would help."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from petra.core.objective import Constraint, Metrics, violation
from petra.core.text import printable
from petra.core.trial import Trial, TrialStatus

FEW = 8  # trials, after which nobody should give up


@dataclass(frozen=True)
class Miss:
    """A constraint that a trial breaks: its value, the bound, and by which share of the bound."""

    constraint: Constraint
    value: float
    bound: float
    by: float

    @property
    def enough(self) -> str:
        """The constraint as it would let the trial through, rounded outwards."""
        digits = 2 - math.floor(math.log10(abs(self.value))) if self.value else 0
        outwards = math.floor if self.constraint.at_least else math.ceil
        value = outwards(self.value * 10**digits) / 10**digits
        return f"{self.constraint.metric} {'>=' if self.constraint.at_least else '<='} {_n(value)}"

    def __str__(self) -> str:
        side = "below" if self.constraint.at_least else "above"
        return f"{self.constraint.metric} {_n(self.value)} is {self.by:.1%} {side} {_n(self.bound)}"


@dataclass(frozen=True)
class NearMiss:
    """The trial that broke the constraints least, its misses, the worst first, and the constraint
    that `binds`: that most trials break alone, else the one that it broke most. `late` says whether
    the search was still coming nearer when it ended, or had hardly begun.
    """

    number: int
    misses: tuple[Miss, ...]
    binds: Constraint
    late: bool

    @property
    def help(self) -> str:
        """What would have let it through, and whether more time may."""
        bounds = " and ".join(miss.enough for miss in self.misses)
        time = (
            "the search was still coming nearer: more time may do"
            if self.late
            else "later trials came no nearer, so more time alone hardly helps"
        )
        return f"it would pass with {bounds}; {time}"

    def __str__(self) -> str:
        misses = ", ".join(map(str, self.misses))
        return f"{self.binds} binds; nearest is trial {self.number}: {misses}; {self.help}"

    def as_dict(self) -> dict[str, object]:
        """Plain data, for JSON."""
        return {
            "trial": self.number,
            "binds": str(self.binds),
            "misses": [
                {
                    "constraint": str(m.constraint),
                    "value": m.value,
                    "bound": m.bound,
                    "by": m.by,
                    "enough": m.enough,
                }
                for m in self.misses
            ],
            "more_time_may_help": self.late,
        }


def nearest_miss(
    trials: Sequence[Trial], constraints: Sequence[Constraint], baseline: Metrics
) -> NearMiss | None:
    """The nearest of `trials`, in order of number and without the untouched model, all of which
    break a constraint or failed; None where none has every constrained metric. Those left before
    training count by the costs that are known. O(trials x constraints).
    """
    known = [
        t for t in trials if t.fidelity.full and all(c.metric in t.metrics for c in constraints)
    ]
    broken = {t.number: misses(t.metrics, constraints, baseline) for t in known}
    known = [t for t in known if broken[t.number]]
    if not known:
        return None
    nearest = min(known, key=lambda t: violation(constraints, t.metrics, baseline))
    found = broken[nearest.number]
    alone = Counter(m[0].constraint for m in broken.values() if len(m) == 1)
    binds = alone.most_common(1)[0][0] if alone else found[0].constraint
    last = trials[-1].number
    late = last <= FEW or nearest.number > 2 * last / 3
    return NearMiss(nearest.number, found, binds, late)


def misses(
    metrics: Metrics, constraints: Sequence[Constraint], baseline: Metrics
) -> tuple[Miss, ...]:
    """The constraints that these metrics break by a finite share, the worst first. KeyError where a
    constrained metric is missing.
    """
    found = [
        Miss(c, metrics[c.metric].mean, c.bound(baseline), by)
        for c in constraints
        if 0 < (by := c.violation(metrics, baseline)) < math.inf
    ]
    return tuple(sorted(found, key=lambda miss: -miss.by))


def counted(trials: Sequence[Trial], broken: Callable[[Trial], Sequence[str]]) -> list[str]:
    """Why `trials`, without the untouched model, are not on a front, each of them counted once: by
    the constraints that it breaks together, which `broken` names, or by how it ended.
    """
    whole = [t for t in trials if t.comparable]
    ways = Counter(" and ".join(names) for t in whole if (names := broken(t)))
    left = sum(t.status is TrialStatus.SCREENED for t in trials)
    reduced = sum(t.measured and not t.comparable for t in trials)
    failures = [t.failure for t in trials if t.failure and t.failed]
    failed = Counter(printable(f"{f.stage}: {f.kind}") for f in failures).most_common()
    parts = [f"{n} violate{_s(n)} {text}" for text, n in ways.most_common()]
    parts += [f"{reduced} {_were(reduced)} evaluated at a reduced fidelity"] if reduced else []
    parts += [f"{left} screened before they were trained or timed"] if left else []
    parts += [f"{n} failed in {text}" for text, n in failed[:_KINDS]]
    if more := sum(n for _, n in failed[_KINDS:]):
        parts.append(f"{more} failed otherwise")
    rest = len(trials) - ways.total() - reduced - left - len(failures)
    return parts + ([f"{rest} have no figures to compare"] if rest else [])


_KINDS = 5  # of failures, in words


def _s(count: int) -> str:
    return "s" if count == 1 else ""


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _n(value: float) -> str:
    """Four significant digits, and all before the point."""
    return f"{value:.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
