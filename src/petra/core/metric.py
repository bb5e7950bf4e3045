"""Metrics describe themselves: what tables, figures, cards and the search need is said once."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from petra.core.errors import ConfigError, did_you_mean
from petra.core.registry import Registry
from petra.core.text import printable, shown

QUALITY = "quality"  # the name under which every trial has the task's own metric
CHANGE = "_change"  # after the name of what a task measures: its difference to the untouched model
Form = Literal["score", "ratio", "si", "plain", "duration"]
Scale = Literal["ratio", "share", "half"]
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,59}")


@dataclass(frozen=True)
class Shown:
    """Where a metric stands without being an objective, and under which short title. Objectives
    and constraints stand everywhere.
    """

    column: str = ""  # its title in tables, '' for the metric's name
    terminal: int | None = None  # how readily a narrow terminal drops it, 0 never; None: not there
    change: int | None = None  # the same for a column of its change against the untouched model
    page: bool = False  # in the HTML table of the front
    card: bool = False  # on the model card
    bench: bool = False  # in the tables of `petra bench`
    hover: bool = False  # beside a point of a figure


@dataclass(frozen=True)
class Metric:
    """A number that every measured trial has; `ragged` ones only where items differ in length,
    `on_demand` ones, which cost time of their own, only where an objective, a constraint or the
    goal is about them, else when a model is confirmed.

    `maximize` is None where the task says which direction is better: of `quality`. `timed` metrics
    carry noise that differs from run to run; others are exact for a given file and data. `sampled`
    ones belong to the task: measured on the items of a split, they are read once more, on the test
    split. `form` and `digits` say how a value is written. `scale` says what the search makes of it:
    its ratio to the untouched model's, its change as a share of the untouched model's magnitude, or
    v / (v + `half`) where the untouched model has none. `over` names the metric in absolute terms
    of which this one is the ratio to the untouched model. `count`, of the files that ship, is how a
    plugin's metric is taken.
    """

    name: str
    title: str
    doc: str = ""
    unit: str = ""
    maximize: bool | None = False
    timed: bool = False
    sampled: bool = False
    form: Form = "plain"
    digits: int = 3
    scale: Scale = "ratio"
    half: float = 0.0
    positive: bool = False
    ragged: bool = False
    on_demand: bool = False
    over: str = ""
    units: Mapping[str, float] = field(default_factory=dict)
    shown: Shown = Shown()
    count: Callable[[Sequence[Path]], float] | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"metric: got the name {shown(self.name)}",
                hint="a letter, then letters, digits and _, at most 60",
            )
        if not self.title or self.title != printable(self.title) or len(self.title) > 200:
            raise ConfigError(f"metric {self.name}: got the title {shown(self.title)}")

    @property
    def column(self) -> str:
        """Its title in a table."""
        return self.shown.column or self.name.replace("_", " ")

    @property
    def axis(self) -> str:
        """Its title on the axis of a figure."""
        if self.sampled:
            return f"{self.title}, validation"
        return f"{self.title}, {self.unit}" if self.unit and self.form != "ratio" else self.title

    def as_dict(self) -> dict[str, object]:
        """What `task_metric` reads back: the part that a task may say of its own metrics."""
        return {
            "name": self.name, "title": self.title, "maximize": self.maximize, "unit": self.unit,
            "digits": self.digits,
        }  # fmt: skip


def task_metric(
    name: str, *, maximize: bool, title: str = "", unit: str = "", digits: int = 4
) -> Metric:
    """The record of a metric that is measured on the items of a split."""
    return Metric(
        name,
        title or name.replace("_", " "),
        unit=unit,
        maximize=maximize,
        sampled=True,
        form="score",
        digits=digits,
        scale="share",
        units={"%": 0.01},
        shown=Shown(title or name.replace("_", " "), terminal=1, page=True, card=True, bench=True),
    )


_BYTES = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9}
_TIMES = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_RATIO = {"x": 1.0, "%": 0.01}

PETRA_METRICS = (
    Metric(
        QUALITY, QUALITY,
        "the task's metric, measured by running the artifact on the validation split",
        maximize=None, sampled=True, form="score", digits=4, scale="share", units={"%": 0.01},
        shown=Shown(QUALITY, hover=True),
    ),
    Metric(
        "latency_ms", "median latency", "median latency of one batch", "ms",
        timed=True, positive=True, units=_TIMES,
        shown=Shown("latency", terminal=3, page=True, card=True, bench=True),
    ),
    Metric(
        "latency_p95_ms", "95th percentile latency", "95th percentile latency of one batch", "ms",
        timed=True, units=_TIMES, shown=Shown("95th pct.", card=True, bench=True),
    ),
    Metric(
        "latency_ratio", "latency ratio",
        "paired latency of the artifact over the untouched model, same runtime", "x", timed=True,
        form="ratio", digits=2, positive=True, over="latency_ms", units=_RATIO,
        shown=Shown("latency ratio", terminal=0, page=True, bench=True, hover=True),
    ),
    Metric(
        "latency_long_ms", "median latency of long items",
        "median latency of one batch of items as long as the 95th percentile of the data", "ms",
        timed=True, ragged=True, on_demand=True, units=_TIMES,
        shown=Shown("long latency", card=True),
    ),
    Metric(
        "latency_long_ratio", "latency ratio of long items",
        "paired latency of the artifact over the untouched model, of items as long as the 95th"
        " percentile of the data", "x", timed=True, form="ratio", digits=2, ragged=True,
        on_demand=True, over="latency_long_ms", units=_RATIO, shown=Shown("long latency ratio"),
    ),
    Metric(
        "throughput", "throughput", "items per second at the throughput batch size", "items/s",
        maximize=True, timed=True, form="si", positive=True, on_demand=True,
        shown=Shown("throughput", page=True, card=True, bench=True),
    ),
    Metric(
        "throughput_ratio", "throughput ratio",
        "paired throughput of the artifact over the untouched model", "x", maximize=True,
        timed=True, form="ratio", digits=2, on_demand=True, over="throughput", units=_RATIO,
    ),
    Metric(
        "size_bytes", "size of the files", "bytes of all files that ship", "B", form="si",
        positive=True, units=_BYTES,
        shown=Shown("size", terminal=0, change=2, page=True, card=True, bench=True, hover=True),
    ),
    Metric(
        "params", "parameters", "number of parameters", form="si",
        shown=Shown("params", terminal=4, page=True, card=True),
    ),
    Metric(
        "macs", "multiply-accumulates", "multiply-accumulates for one item", form="si",
        shown=Shown("MACs", terminal=5, page=True, card=True),
    ),
    Metric(
        "memory_mb", "peak memory to load and run",
        "peak host memory of loading and running the artifact in a fresh process, a GPU's not"
        " included", "MB", timed=True, units={"kb": 1e-3, "mb": 1.0, "gb": 1e3},
        shown=Shown("memory", terminal=6, page=True, card=True, bench=True),
    ),
    Metric(
        "train_s", "training",
        "seconds spent building the candidate (cached prefixes not counted again)", "s",
        timed=True, form="duration", scale="half", half=600.0,
        units={"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}, shown=Shown("training"),
    ),
)  # fmt: skip
METRICS: Registry[Metric] = Registry("metric", {m.name: m for m in PETRA_METRICS})
"""Metrics of every study, in the order of tables. A task adds its own (`petra.tasks.scorers`)."""

ALIASES: Mapping[str, str] = {
    "latency": "latency_ratio",
    "size": "size_bytes",
    "memory": "memory_mb",
}


def required_metrics(named: Collection[str]) -> tuple[str, ...]:
    """What every measured trial has in a study whose objectives, constraints and goal are about the
    metrics `named`: these, and petra's own but for those that only some models have or that only
    somebody's asking for them is worth.
    """
    always = (m.name for m in PETRA_METRICS if not m.ragged and not m.on_demand)
    return tuple(dict.fromkeys((*always, *named)))


@dataclass(frozen=True)
class Catalogue:
    """The metrics of one study: those of `METRICS`, and the task's. The first of `task` is *the*
    quality, kept under the name "quality"; the others are kept under their own names.
    """

    task: tuple[Metric, ...] = ()

    def __getitem__(self, name: str) -> Metric:
        """The record of a metric. Raises ConfigError for a name that is not known."""
        for metric in self.task[1:]:
            if metric.name == name:
                return metric
        metric = METRICS.get(name)
        if name != QUALITY or not self.task:
            return metric
        own = self.task[0]
        return replace(
            metric, title=own.title, unit=own.unit, maximize=own.maximize, digits=own.digits,
            shown=replace(metric.shown, column=own.title),
        )  # fmt: skip

    def __contains__(self, name: object) -> bool:
        return name in METRICS or any(m.name == name for m in self.task[1:])

    def names(self) -> tuple[str, ...]:
        """The quality, what else the task measures, then all others."""
        others = [name for name, _ in METRICS.items() if name != QUALITY]
        return (QUALITY, *(m.name for m in self.task[1:]), *others)

    def label(self, name: str) -> str:
        """What a metric is called in lists: the title of one of the task's, else the name."""
        return self[name].title if self[name].sampled else name

    def others(self) -> tuple[Metric, ...]:
        """What the task measures besides the quality."""
        return self.task[1:]

    def costs(self) -> tuple[Metric, ...]:
        """All that is no quality, in the order of tables."""
        return tuple(m for _, m in METRICS.items() if not m.sampled)


def describe(name: str) -> Metric:
    """How a metric behaves, whatever the study: all that a task measures behaves alike."""
    return METRICS.get(name) if name in METRICS else task_metric(name, maximize=True)


def resolve_metric(name: str, *, where: str, own: Collection[str] | None = ()) -> str:
    """The metric a user means by `name`; raises ConfigError that begins with the path `where`.

    `own` are the names of what the task measures besides the quality; None while the task is not
    known: then any name may be one, but for what is a slip of the pen for a known metric.
    """
    metric = ALIASES.get(name, name)
    known = [*METRICS, *ALIASES]
    deferred = own is None and _NAME.fullmatch(name) and not get_close_matches(name, known, 1, 0.85)
    if metric in METRICS or metric in (own or ()) or deferred:
        return metric
    raise ConfigError(
        f"{where}: unknown metric {shown(name)}", hint=did_you_mean(name, [*known, *(own or ())])
    )


def task_metrics(described: Iterable[Mapping[str, object]]) -> tuple[Metric, ...]:
    """The records of a task's metrics as a study keeps them (`Metric.as_dict`). Raises ValueError,
    or ConfigError, for what petra does not write.
    """
    found = []
    for one in described:
        name, title, unit = one.get("name"), one.get("title"), one.get("unit")
        up, digits = one.get("maximize"), one.get("digits")
        if not (isinstance(name, str) and isinstance(title, str) and isinstance(unit, str)):
            raise ValueError(f"no description of a metric: {shown(dict(one))}")
        if not isinstance(up, bool) or type(digits) is not int or not 0 <= digits <= 9:
            raise ValueError(f"no direction or no digits: {shown(dict(one))}")
        if unit != printable(unit) or len(unit) > 40:
            raise ValueError(f"no unit: {shown(unit)}")
        found.append(task_metric(name, maximize=up, title=title, unit=unit, digits=digits))
    return tuple(found)
