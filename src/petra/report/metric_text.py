"""Metrics and constraints in words, for people who have not read the documentation."""

from __future__ import annotations

import re

from petra.core.metric import Catalogue, Metric, describe
from petra.core.objective import Constraint
from petra.report.numbers_text import value

UNTOUCHED_S = "the untouched model's"


def metric_words(metric: Metric) -> str:
    """What a metric is called: 'accuracy', 'size of the files', "latency (times the untouched
    model's)".
    """
    return f"{_of_ratio(metric)} (times {UNTOUCHED_S})" if metric.over else metric.title


def column_words(metric: Metric) -> str:
    """The same, short enough for the head of a column."""
    return metric_words(metric) if metric.over else metric.column


def constraint_words(known: Catalogue, constraint: Constraint) -> str:
    """'size of the files at most 300 kB', "latency at most 0.60x the untouched model's"."""
    metric = known[constraint.metric]
    name = _of_ratio(metric) if metric.over else metric.title
    side = "at least" if constraint.at_least else "at most"
    scale, offset = constraint.scale, constraint.offset
    if metric.over and not (scale and offset):
        return f"{name} {side} {value(metric, scale or offset)} {UNTOUCHED_S}"
    if not scale:
        return f"{name} {side} {_amount(metric, offset)}"
    bound = UNTOUCHED_S if scale == 1 else f"{scale:g} times {UNTOUCHED_S}"
    if offset:
        bound += f" {'minus' if offset < 0 else 'plus'} {_amount(metric, abs(offset))}"
    return f"{name} {side} {bound}"


def renamed(known: Catalogue, sentence: str) -> str:
    """A sentence with metrics in words where it has their names, and with their units where they
    have values: 'size_bytes <= 3e5' -> 'size of the files <= 300 kB'.
    """

    def words(found: re.Match[str]) -> str:
        name, between, number = found.groups()
        if name not in known:
            return found[0]
        metric = known[name]
        told = f"{between}{value(metric, float(number))}" if number else ""
        return f"{metric_words(metric)}{told}"

    # Neither a part of a number, nor a factor before the untouched model's value.
    number = r"( <= | >= | )(\d+(?:\.\d+)?(?:e[-+]?\d+)?)(?![\w.%]| \*)"
    return re.sub(rf"\b([a-z][a-z0-9]*_[a-z0-9_]+)\b(?:{number})?", words, sentence)


def _of_ratio(metric: Metric) -> str:
    """What a ratio is the ratio of."""
    return describe(metric.over).column


def _amount(metric: Metric, amount: float) -> str:
    return f"{amount:g} {metric.unit}".rstrip() if metric.sampled else value(metric, amount)
