"""The parts that every chart of the report is drawn from: axes, ticks, marks and labels, as SVG.

A chart is a drawing of 440 x 320 units that scales with the page. Colours come from the page's
style sheet by class, so that charts follow it into the dark and on to paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from petra.core.metric import Metric
from petra.report.page import esc

WIDTH, HEIGHT = 440, 320
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 30, 46  # room around the plotted rectangle
CHARACTER = 7.0  # units that a letter of a label is wide, on average
LINE = 13  # units that a label is high
_LONGEST_TITLE = 58  # characters of an axis title
_PREFIXES = ("", "k", "M", "G", "T", "P")


@dataclass(frozen=True)
class Axis:
    """What lies between `low` and `high` is drawn from `start` to `end`, both in units. `tick`
    writes a value.
    """

    low: float
    high: float
    start: float
    end: float
    title: str
    tick: Callable[[float], str]

    def at(self, value: float) -> float:
        """Where a value is; what lies outside is at the border."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    @property
    def span(self) -> float:
        """Units from end to end."""
        return abs(self.end - self.start)

    def holds(self, value: float) -> bool:
        """Whether a value lies within the frame."""
        return self.low <= value <= self.high


def x_axis(low: float, high: float, title: str, tick: Callable[[float], str]) -> Axis:
    """An axis from left to right. `low` is below `high`."""
    return Axis(low, high, LEFT, WIDTH - RIGHT, title, tick)


def y_axis(low: float, high: float, title: str, tick: Callable[[float], str]) -> Axis:
    """An axis from bottom to top."""
    return Axis(low, high, HEIGHT - BOTTOM, TOP, title, tick)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from `low` to `high`, a step of 1, 2, 2.5 or 5 times a power of ten apart, at
    most `most` of them.
    """
    span = high - low
    if not (span > 0 and math.isfinite(span)):
        return []
    power = 10.0 ** math.floor(math.log10(span / most))
    for step in (f * power for f in (1, 2, 2.5, 5, 10, 20, 25, 50)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [k * step for k in range(first, last + 1)]
    return []


def tick_text(metric: Metric, low: float, high: float) -> Callable[[float], str]:
    """How values of a metric are written beside an axis from `low` to `high`: '200 kB', '0.5x'."""
    if metric.form == "ratio":
        return lambda v: f"{_plain(v)}x"
    if metric.form == "duration":
        return lambda v: f"{_plain(v)} s"
    if metric.form != "si":
        return lambda v: f"{_plain(v)} {metric.unit}".rstrip()
    largest = max(abs(low), abs(high))
    power = min(len(_PREFIXES) - 1, max(0, int(math.log10(largest) // 3))) if largest >= 1 else 0
    counted, _, per = metric.unit.partition("/")
    unit = f"{_PREFIXES[power]}{'' if per else counted}"
    behind = f"/{per}" if per else ""
    return lambda v: f"{_plain(v / 1000.0**power)} {unit}".rstrip() + behind


def _plain(value: float) -> str:
    return f"{value:.6g}" if abs(value) > 1e-12 else "0"


def unit(value: float) -> str:
    """A coordinate."""
    return f"{value:.1f}".removesuffix(".0")


def path(kind: str, steps: str) -> str:
    return f'<path class="{kind}" d="{steps}"/>' if steps else ""


def dots(points: Iterable[tuple[float, float]]) -> str:
    """Points as one path of lines without length, which round ends make visible: thousands of them
    cost a page nothing.
    """
    return "".join(f"M{unit(x)} {unit(y)}h0" for x, y in points)


def crosses(points: Iterable[tuple[float, float]], size: float = 3.0) -> str:
    """The same as crosses."""
    b = unit(2 * size)
    return "".join(f"M{unit(x - size)} {unit(y - size)}l{b} {b}m-{b} 0l{b}-{b}" for x, y in points)


def stairs(points: Sequence[tuple[float, float]]) -> str:
    """A line through points, first along x, then along y."""
    if not points:
        return ""
    (x, y), *others = points
    return f"M{unit(x)} {unit(y)}" + "".join(f"H{unit(x)}V{unit(y)}" for x, y in others)


def diamond(x: float, y: float, size: float) -> str:
    s = unit(size)
    return f"M{unit(x)} {unit(y - size)}l{s} {s}l-{s} {s}l-{s}-{s}z"


def star(x: float, y: float, size: float) -> str:
    """Five points, the first on top."""
    corners = []
    for i in range(10):
        radius, angle = (size if i % 2 == 0 else 0.45 * size), math.pi * i / 5
        corners.append(f"{unit(x + radius * math.sin(angle))} {unit(y - radius * math.cos(angle))}")
    return f"M{'L'.join(corners)}z"


def text(x: float, y: float, content: str, *, kind: str, anchor: str = "start") -> str:
    """Text that is escaped here; `anchor` is start, middle or end."""
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text class="{kind}" x="{unit(x)}" y="{unit(y)}"{place}>{esc(content)}</text>'


def frame(x: Axis, y: Axis) -> str:
    """Grid, ticks and titles; the title of the y axis stands above the axis, to be read without
    turning one's head.
    """
    bottom, left, right = y.start, x.start, x.end
    parts = []
    for value in ticks(x.low, x.high, 5):
        at = unit(x.at(value))
        parts.append(path("grid", f"M{at} {unit(bottom)}V{unit(y.end)}"))
        words = x.tick(value)
        middle = min(x.at(value), WIDTH - CHARACTER * len(words) / 2)
        parts.append(text(middle, bottom + 16, words, kind="tick", anchor="middle"))
    for value in ticks(y.low, y.high, 6):
        at = unit(y.at(value))
        parts.append(path("grid", f"M{unit(left)} {at}H{unit(right)}"))
        parts.append(text(left - 6, y.at(value) + 4, y.tick(value), kind="tick", anchor="end"))
    parts.append(path("axis", f"M{unit(left)} {unit(y.end)}V{unit(bottom)}H{unit(right)}"))
    parts.append(text(right, HEIGHT - 8, shortened(x.title), kind="title", anchor="end"))
    parts.append(text(2, 14, shortened(y.title), kind="title"))
    return f"<g aria-hidden=true>{''.join(parts)}</g>"


def shortened(title: str) -> str:
    """A title that fits."""
    return title if len(title) <= _LONGEST_TITLE else f"{title[: _LONGEST_TITLE - 1]}…"


def drawing(content: str, *, label: str, data: str = "", links: bool = False) -> str:
    """The whole chart; `label` is what it shows in words, for whoever does not see it. With `links`
    there is something in it to go to.
    """
    role = "group" if links else "img"
    return (
        f'<svg class=chart viewBox="0 0 {WIDTH} {HEIGHT}" role={role} aria-label="{esc(label)}"'
        f"{data}>{content}</svg>"
    )
