"""Metrics describe themselves: what tables, figures, cards and the search need is said once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from petra.core.announced import instance_of
from petra.core.errors import ConfigError, did_you_mean
from petra.core.metric_record import NAME
from petra.core.metric_record import Metric as Metric
from petra.core.metric_record import Shown as Shown
from petra.core.metric_record import task_metric as task_metric
from petra.core.registry import Registry
from petra.core.suggest import nearest_name, slip_of
from petra.core.text import printable, shown

QUALITY = "quality"  # the name under which every trial has the task's own metric
CHANGE = "_change"  # after the name of what a task measures: its difference to the untouched model
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
    Metric(
        "trainable_params", "trainable parameters",
        "parameters that training may change, shared ones once, without the head of a model that is"
        " adapted by modules", form="si", on_demand=True, scale="half", half=3e5,
        units={"k": 1e3, "m": 1e6}, shown=Shown("trainable"),
    ),
    Metric(
        "trainable_share", "share of trainable parameters",
        "trainable parameters over all parameters of the untouched model", on_demand=True,
        scale="half", half=0.01, units={"%": 0.01}, shown=Shown("trainable share"),
    ),
    Metric(
        "module_bytes", "bytes stored for the task",
        "bytes that this task adds to the untouched model's: the file of modules with the trained"
        " head, or all weights of a model without modules or whose other weights were trained, too",
        "B", form="si",
        on_demand=True, scale="half", half=1e6, units=_BYTES, shown=Shown("module file"),
    ),
    Metric(
        "train_memory_mb", "peak memory of training",
        "peak memory of the process that trained, on a GPU that of the GPU; 0 without training",
        "MB", timed=True, on_demand=True, scale="half", half=1e3,
        units={"kb": 1e-3, "mb": 1.0, "gb": 1e3}, shown=Shown("training memory"),
    ),
    Metric(
        "latency_unmerged_ms", "median latency with modules apart",
        "median latency of one batch, of the model whose modules are not folded into its layers",
        "ms", timed=True, on_demand=True, units=_TIMES, shown=Shown("unmerged latency"),
    ),
    Metric(
        "latency_unmerged_ratio", "latency ratio with modules apart",
        "paired latency over the untouched model, of the model whose modules are not folded into"
        " its layers", "x", timed=True, form="ratio", digits=2, on_demand=True,
        over="latency_unmerged_ms", units=_RATIO, shown=Shown("unmerged ratio"),
    ),
)  # fmt: skip
METRICS: Registry[Metric] = Registry(
    "metric",
    {m.name: m for m in PETRA_METRICS},
    group="petra.metrics",
    check=instance_of(Metric),
)
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

    def costs_on(self, place: Literal["page", "card"], asked: Collection[str]) -> list[Metric]:
        """Those of the `costs` that stand in a place whatever the study, and those `asked` for: its
        objectives and what its constraints are about.
        """
        return [m for m in self.costs() if getattr(m.shown, place) or m.name in asked]


def describe(name: str) -> Metric:
    """How a metric behaves, whatever the study: all that a task measures behaves alike."""
    return METRICS.get(name) if name in METRICS else task_metric(name, maximize=True)


def resolve_metric(
    name: str, *, where: str, own: Collection[str] | None = (), quality: str = ""
) -> str:
    """The metric a user means by `name`; raises ConfigError that begins with the path `where`.

    `own` are the names of what the task measures besides the quality, of which `quality` is the
    title; None while the task is not known: then any name may be one, but for what is a slip of the
    pen for a known metric.
    """
    metric = ALIASES.get(name, name)
    known = [*METRICS, *ALIASES, *(own or ())]
    deferred = own is None and NAME.fullmatch(name) and slip_of(name, known) is None
    if metric in METRICS or metric in (own or ()) or deferred:
        return metric
    hint = did_you_mean(name, known)
    if nearest_name(name, known) is None:
        here = f" (here {quality})" if quality else ""
        hint = f"{QUALITY!r} is the task's metric{here}; {hint}"
    raise ConfigError(f"{where}: unknown metric {shown(name)}", hint=hint)


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
