"""Numbers as people read them: SI prefixes, as many digits as the noise leaves, changes against the
untouched model.
"""

from __future__ import annotations

import math

from petra.core.measurement import Measurement
from petra.core.metric import Metric, describe

_PREFIXES = ("", "k", "M", "G", "T", "P")

NONE = "-"  # in place of a value that was not measured


def significant(value: float, digits: int = 3) -> str:
    """Fixed-point with that many significant digits: 0.42 -> '0.420', 1234.5 -> '1234'."""
    rounded = abs(float(f"{value:.{digits - 1}e}"))  # 0.9996 is 1.00, not 1.000
    places = digits - 1 - math.floor(math.log10(rounded)) if rounded else digits - 1
    return f"{value:.{min(9, max(0, places))}f}"


def si(value: float, unit: str = "") -> str:
    """Three significant digits with an SI prefix: 61234 -> '61.2 k'; unit appended: '61.2 kB'."""
    step, scaled = 0, float(value)
    while abs(scaled) >= 999.5 and step < len(_PREFIXES) - 1:
        scaled /= 1000
        step += 1
    text = f"{scaled:.0f}" if step == 0 and scaled == int(scaled) else significant(scaled)
    tail = f"{_PREFIXES[step]}{unit}"
    return f"{text} {tail}" if tail else text


def duration(seconds: float) -> str:
    """'8.3 s', '2 min 05 s', '1 h 20 min'."""
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def decimals(stderr: float) -> int:
    """Decimal places at which a standard error has two significant digits; 4 when there is no
    error.
    """
    return min(6, max(0, 1 - math.floor(math.log10(stderr)))) if stderr > 0 else 4


def with_error(m: Measurement) -> str:
    """'0.9123 ± 0.0071', or four significant digits where there is no error."""
    if not m.stderr:
        return f"{m.mean:.4g}"
    places = decimals(m.stderr)
    return f"{m.mean:.{places}f} ± {m.stderr:.{places}f}"


def value(metric: str | Metric, mean: float) -> str:
    """A metric's value with its unit. Of a count per something, the counted is not named."""
    m = describe(metric) if isinstance(metric, str) else metric
    match m.form:
        case "ratio":
            return f"{mean:.{m.digits}f}x"
        case "duration":
            return duration(mean)
        case "si":
            counted, _, per = m.unit.partition("/")
            return f"{si(mean)}/{per}" if per else si(mean, counted)
        case "score":
            text = f"{mean:.{m.digits}f}"
        case _:
            text = significant(mean, m.digits)
    return f"{text} {m.unit}" if m.unit else text


def value_of(metric: Metric, found: Measurement | None) -> str:
    """A measured value with its unit; a dash for what was not measured."""
    return NONE if found is None else value(metric, found.mean)


def interval(m: Measurement) -> str:
    """95% interval of a ratio: '0.30-0.32'; '' when the ratio has no error."""
    low, high = m.interval
    return f"{low:.2f}-{high:.2f}" if m.stderr else ""


def change(new: float, old: float) -> str:
    """Relative change: '-75%', '+3.1%', '=' when nothing moved, '' when there is nothing to compare
    with.
    """
    if not (math.isfinite(new) and math.isfinite(old)) or old == 0:
        return ""
    percent = 100 * (new - old) / abs(old)
    if abs(percent) < 0.05:
        return "="
    return f"{percent:+.1f}%" if abs(percent) < 9.95 else f"{percent:+.0f}%"


def difference(change: Measurement, *, noise: bool = True) -> str:
    """Absolute change of a score, to the digits its noise allows: '-0.0120 ± 0.0041', '=' when
    nothing moved. Without `noise`, the change alone.
    """
    if change.mean == 0:
        return "="
    places = decimals(change.stderr)
    error = f" ± {change.stderr:.{places}f}" if noise and change.stderr else ""
    return f"{change.mean:+.{places}f}{error}"
