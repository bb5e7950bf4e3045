"""What a metric is: the record in which tables, figures, cards and the search read all about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from petra.core.errors import ConfigError
from petra.core.text import printable, shown

Form = Literal["score", "ratio", "si", "plain", "duration"]
Scale = Literal["ratio", "share", "half"]
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,59}")


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
    `on_demand` ones, which cost time of their own or mean something to few studies, only where an
    objective, a constraint or the goal is about them, else when a model is confirmed, as far as its
    files alone tell.

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
        if not NAME.fullmatch(self.name):
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
