"""What is optimised and what is demanded: metrics, objectives and constraints."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from petra.core.errors import ConfigError, did_you_mean
from petra.core.measurement import LARGEST, Measurement
from petra.core.text import shown

Metrics = Mapping[str, Measurement]
RESOLUTION = 0.01  # relative; timed metrics closer than this count as equal


@dataclass(frozen=True)
class Metric:
    """A column of every trial. `maximize` is None for quality, whose direction is the task's.
    `timed` metrics carry noise that differs from run to run.
    """

    name: str
    unit: str
    maximize: bool | None
    doc: str
    timed: bool = False


METRICS: Mapping[str, Metric] = {
    m.name: m
    for m in (
        Metric(
            "quality",
            "",
            None,
            "the task's metric, measured by running the artifact on the validation split",
        ),
        Metric(
            "latency_ratio",
            "x",
            False,
            "paired latency of the artifact over the untouched model, same runtime",
            timed=True,
        ),
        Metric("latency_ms", "ms", False, "median latency of one batch", timed=True),
        Metric("latency_p95_ms", "ms", False, "95th percentile latency of one batch", timed=True),
        Metric(
            "throughput",
            "items/s",
            True,
            "items per second at the throughput batch size",
            timed=True,
        ),
        Metric(
            "throughput_ratio",
            "x",
            True,
            "paired throughput of the artifact over the untouched model",
            timed=True,
        ),
        Metric("size_bytes", "B", False, "bytes of all files that ship"),
        Metric("params", "", False, "number of parameters"),
        Metric("macs", "", False, "multiply-accumulates for one item"),
        Metric(
            "memory_mb",
            "MB",
            False,
            "peak host memory of loading and running the artifact in a fresh process, a GPU's not"
            " included",
            timed=True,
        ),
        Metric(
            "train_s",
            "s",
            False,
            "seconds spent building the candidate (cached prefixes not counted again)",
            timed=True,
        ),
    )
}

ALIASES: Mapping[str, str] = {
    "latency": "latency_ratio",
    "size": "size_bytes",
    "memory": "memory_mb",
}


def resolve_metric(name: str, *, where: str) -> str:
    """The metric a user means by `name`; raises ConfigError that begins with the path `where`."""
    metric = ALIASES.get(name, name)
    if metric not in METRICS:
        raise ConfigError(
            f"{where}: unknown metric {shown(name)}", hint=did_you_mean(name, [*METRICS, *ALIASES])
        )
    return metric


@dataclass(frozen=True)
class Objective:
    """One axis of the front: the metric and its direction."""

    metric: str
    maximize: bool

    def resolved(self, value: float) -> float:
        """A value of this metric; timed ones on a grid of 1%, so that noise alone makes nothing
        better.
        """
        if METRICS[self.metric].timed and value > 0 and math.isfinite(value):
            return math.exp(round(math.log(value) / RESOLUTION) * RESOLUTION)
        return value

    def cost(self, metrics: Metrics) -> float:
        """The value in minimisation form."""
        value = self.resolved(metrics[self.metric].mean)
        return -value if self.maximize else value


def named_objectives(metrics: Sequence[str], *, maximize_quality: bool) -> tuple[Objective, ...]:
    """Objectives with their directions; quality takes the task's."""
    directions = {name: METRICS[name].maximize for name in metrics}
    return tuple(
        Objective(name, maximize_quality if d is None else d) for name, d in directions.items()
    )


_MAX_TEXT = 200  # characters of a constraint
_NUMBER = r"[-+]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_CONSTRAINT = re.compile(
    rf"^\s*(?P<metric>\w+)\s*(?P<op><=|>=)\s*(?:(?P<base>baseline)(?:\s*(?P<arith>[-+*])\s*(?P<by>{_NUMBER}))?"
    rf"|(?:(?P<times>{_NUMBER})\s*\*\s*baseline)|(?P<number>{_NUMBER})\s*(?P<unit>[a-z%]+)?)\s*$",
    re.IGNORECASE | re.ASCII,
)
# What a person may write after a number, by the unit the metric is kept in: the factor to that
# unit.
_UNITS: Mapping[str, Mapping[str, float]] = {
    "score": {"%": 0.01},
    "x": {"x": 1.0, "%": 0.01},
    "B": {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9},
    "MB": {"kb": 1e-3, "mb": 1.0, "gb": 1e3},
    "ms": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "s": {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0},
}


def _factor(unit: str, metric: str, *, where: str) -> float:
    if not unit:
        return 1.0
    kept_in = "score" if METRICS[metric].maximize is None else METRICS[metric].unit
    allowed = _UNITS.get(kept_in, {})
    if unit.lower() not in allowed:
        units = ", ".join(allowed) if allowed else "a number without a unit"
        raise ConfigError(f"{where}: {metric} is not given in {unit!r}", hint=f"allowed: {units}")
    return allowed[unit.lower()]


def baseline_value(metric: str, baseline: Metrics) -> float:
    """The untouched model's value: 1 by definition for a ratio to itself. KeyError when it was not
    measured.
    """
    return 1.0 if METRICS[metric].unit == "x" else baseline[metric].mean


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
    def parse(text: str, *, where: str = "constraint") -> Constraint:
        """Read one constraint; raises ConfigError naming `where`, what was got and the grammar."""
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
        metric = resolve_metric(match["metric"], where=where)
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
        return (
            relative if relative > 1e-9 else 0.0
        )  # a value at the bound is inside, however both were rounded

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
        if c.scale == 0.0 and not c.at_least and c.metric != "quality" and c.offset <= 0:
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
