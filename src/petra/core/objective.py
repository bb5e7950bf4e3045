"""What is optimised and what is demanded: objectives and constraints."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petra.core.errors import ConfigError
from petra.core.measurement import LARGEST, Measurement
from petra.core.metric import Catalogue, Metric, describe, resolve_metric
from petra.core.text import shown

Metrics = Mapping[str, Measurement]
RESOLUTION = 0.01  # relative; timed metrics closer than this count as equal


@dataclass(frozen=True)
class Objective:
    """One axis of the front: the metric and its direction."""

    metric: str
    maximize: bool

    def resolved(self, value: float) -> float:
        """A value of this metric; timed ones on a grid of 1%, so that noise alone makes nothing
        better.
        """
        if describe(self.metric).timed and value > 0 and math.isfinite(value):
            return math.exp(round(math.log(value) / RESOLUTION) * RESOLUTION)
        return value

    def cost(self, metrics: Metrics) -> float:
        """The value in minimisation form."""
        value = self.resolved(metrics[self.metric].mean)
        return -value if self.maximize else value

    def costs(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """`cost` of many values at once, to the last bit but one: enough to order them."""
        if describe(self.metric).timed:
            inside = np.isfinite(values) & (values > 0)
            logs = np.log(values, out=np.zeros_like(values), where=inside)
            values = np.where(inside, np.exp(np.round(logs / RESOLUTION) * RESOLUTION), values)
        return -values if self.maximize else values


def named_objectives(
    metrics: Sequence[str], *, maximize_quality: bool = True, task: Sequence[Metric] = ()
) -> tuple[Objective, ...]:
    """Objectives with their directions. Those of a task's metrics are said by `task`, of which the
    first is the quality, or for a task with only that by `maximize_quality`.
    """
    known = Catalogue(tuple(task))
    directions = {name: known[name].maximize for name in metrics}
    return tuple(
        Objective(name, maximize_quality if d is None else d) for name, d in directions.items()
    )


_MAX_TEXT = 200  # characters of a constraint
_NUMBER = r"[-+]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_CONSTRAINT = re.compile(
    r"^\s*(?P<metric>\w+)\s*(?P<op><=|>=)\s*"
    rf"(?:(?P<base>baseline)(?:\s*(?P<arith>[-+*])\s*(?P<by>{_NUMBER}))?"
    rf"|(?:(?P<times>{_NUMBER})\s*\*\s*baseline)|(?P<number>{_NUMBER})\s*(?P<unit>[a-z%]+)?)\s*$",
    re.IGNORECASE | re.ASCII,
)


def _factor(unit: str, metric: str, *, where: str) -> float:
    if not unit:
        return 1.0
    allowed = describe(metric).units
    if unit.lower() not in allowed:
        units = ", ".join(allowed) if allowed else "a number without a unit"
        raise ConfigError(f"{where}: {metric} is not given in {unit!r}", hint=f"allowed: {units}")
    return allowed[unit.lower()]


def baseline_value(metric: str, baseline: Metrics) -> float:
    """The untouched model's value: 1 by definition for a ratio to itself.

    KeyError when it was not measured.
    """
    return 1.0 if describe(metric).form == "ratio" else baseline[metric].mean


@dataclass(frozen=True)
class Constraint:
    """``metric <= bound`` or ``metric >= bound``; the bound is ``scale * baseline + offset`` or
    just ``offset``.

    Written as ``size_bytes <= 300 kB``, ``quality >= baseline - 0.01`` or ``latency_ms <= 0.5 *
    baseline``.
    """

    metric: str
    at_least: bool
    offset: float
    scale: float = 0.0

    @staticmethod
    def parse(
        text: str, *, where: str = "constraint", own: Collection[str] | None = ()
    ) -> Constraint:
        """Read one constraint; raises ConfigError naming `where`, what was got and the grammar.

        `own` as for `petra.core.metric.resolve_metric`.
        """
        match = _CONSTRAINT.match(text) if len(text) <= _MAX_TEXT else None
        if match is None:
            raise ConfigError(
                f"{where}: cannot read {shown(text)}",
                hint=(
                    "write METRIC <= NUMBER or METRIC >= NUMBER, where NUMBER may be relative to"
                    " the untouched model: 'size <= 300 kB', 'quality >= baseline - 0.01',"
                    " 'latency_ms <= 0.5 * baseline'"
                ),
            )
        metric = resolve_metric(match["metric"], where=where, own=own)
        scale, offset = 0.0, 0.0
        if match["base"]:
            by = float(match["by"]) if match["by"] else 0.0
            if match["arith"] == "*":
                scale = by
            else:
                scale, offset = 1.0, -by if match["arith"] == "-" else by
        elif match["times"]:
            scale = float(match["times"])
        else:
            offset = float(
                f"{float(match['number']) * _factor(match['unit'] or '', metric, where=where):.12g}"
            )
        if not max(abs(scale), abs(offset)) <= LARGEST:
            raise ConfigError(
                f"{where}: {shown(text)}: a number is too large", hint=f"at most {LARGEST:g}"
            )
        return Constraint(metric, match["op"] == ">=", offset, scale)

    def bound(self, baseline: Metrics) -> float:
        """The bound as a number. KeyError when it is relative to a metric the baseline lacks."""
        return (
            self.scale * baseline_value(self.metric, baseline) + self.offset
            if self.scale
            else self.offset
        )

    def violation(self, metrics: Metrics, baseline: Metrics) -> float:
        """0 when satisfied, else by how much, relative to the bound so that violations of different
        metrics add up.

        A value that is not a number violates every bound infinitely.
        """
        bound = self.bound(baseline)
        value = metrics[self.metric].mean
        if math.isnan(value):
            return math.inf
        excess = bound - value if self.at_least else value - bound
        relative = excess / max(abs(bound), 1e-9)
        # A value at the bound is inside, however both were rounded.
        return relative if relative > 1e-9 else 0.0

    def __str__(self) -> str:
        parts = []
        if self.scale:
            parts.append("baseline" if self.scale == 1.0 else f"{self.scale:g} * baseline")
        if self.offset or not parts:
            if parts:
                parts.append(f"{'-' if self.offset < 0 else '+'} {abs(self.offset):g}")
            else:
                parts.append(f"{self.offset:g}")
        return f"{self.metric} {'>=' if self.at_least else '<='} {' '.join(parts)}"


def asked_of(objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> frozenset[str]:
    """The metrics that these are about."""
    return frozenset((*(o.metric for o in objectives), *(c.metric for c in constraints)))


def violation(constraints: Sequence[Constraint], metrics: Metrics, baseline: Metrics) -> float:
    """Total relative violation; 0 means feasible."""
    return sum(c.violation(metrics, baseline) for c in constraints)


def check_attainable(constraints: Sequence[Constraint], *, where: str) -> None:
    """Refuse constraints that no model can satisfy: empty intervals and impossible ranges of one
    metric.
    """
    low: dict[tuple[str, float], float] = {}
    high: dict[tuple[str, float], float] = {}
    for c in constraints:
        if c.scale == 0.0 and not c.at_least and c.offset <= 0 and not describe(c.metric).sampled:
            raise ConfigError(
                f"{where}: {str(c)!r} can never hold", hint=f"{c.metric} is always positive"
            )
        key = (c.metric, c.scale)
        if c.at_least:
            low[key] = max(low.get(key, c.offset), c.offset)
        else:
            high[key] = min(high.get(key, c.offset), c.offset)
    for key in low.keys() & high.keys():
        if low[key] > high[key]:
            raise ConfigError(
                f"{where}: no value of {key[0]} is both >= {low[key]:g} and <= {high[key]:g}",
                hint="loosen one of the two",
            )
