"""Pipelines that differ in nothing that matters, recognised by what such differences did before.

Two measured pipelines of the same stages whose costs and qualities agree within their errors say
that the values between theirs make no difference in pipelines of that shape: the same number of
channels after rounding, more samples than there are, a learning rate for nothing to learn. Another
pipeline that differs from a known one only in such values is a duplicate of it. A pair that differs
in one parameter alone, and in its results, takes the claim back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from petra.core.measurement import Measurement
from petra.core.metric import METRICS
from petra.core.pipeline import Pipeline, Value
from petra.core.trial import Trial

ERRORS = 2.0  # standard errors of a difference that are noise
MOST_ALIKE = 64  # pipelines of one shape that are compared with a new one: the latest
Shape = tuple[str, ...]
Place = tuple[int, str]  # of a parameter: the stage's position, the name


@dataclass(frozen=True)
class _Known:
    pipeline: Pipeline
    metrics: Mapping[str, Measurement]  # none while its result is awaited


def _shape(pipeline: Pipeline) -> Shape:
    return tuple(stage.kind for stage in pipeline)


def _differences(one: Pipeline, other: Pipeline) -> dict[Place, tuple[Value, Value]] | None:
    """Where two pipelines of one shape differ; None where one lacks a parameter of the other."""
    found: dict[Place, tuple[Value, Value]] = {}
    for at, (a, b) in enumerate(zip(one, other, strict=True)):
        if a.params.keys() != b.params.keys():
            return None
        for name, value in a.params.items():
            if value != b.params[name]:
                found[at, name] = (value, b.params[name])
    return found


class _Alike:
    """Values of one parameter that make no difference: an interval of numbers, or a few others."""

    def __init__(self) -> None:
        self.groups: list[set[Value]] = []

    def join(self, pair: tuple[Value, Value]) -> None:
        touching = [g for g in self.groups if any(_within(g, v) for v in pair)]
        merged = set(pair).union(*touching)
        self.groups = [g for g in self.groups if g not in touching] + [merged]

    def split(self, pair: tuple[Value, Value]) -> None:
        self.groups = [g for g in self.groups if not all(_within(g, v) for v in pair)]

    def same(self, pair: tuple[Value, Value]) -> bool:
        return any(all(_within(g, v) for v in pair) for g in self.groups)


def _within(group: set[Value], value: Value) -> bool:
    if isinstance(value, bool | str):
        return value in group
    numbers = [v for v in group if not isinstance(v, bool | str)]
    return bool(numbers) and min(numbers) <= value <= max(numbers)


class Duplicates:
    """A function of what it was told, in order. `metrics` are what must agree: all that are no
    durations and that both trials have.
    """

    def __init__(self) -> None:
        self._shapes: dict[Shape, dict[int, _Known]] = {}
        self._alike: dict[tuple[Shape, Place], _Alike] = {}

    def propose(self, number: int, pipeline: Pipeline) -> None:
        """A pipeline is under way."""
        self._put(number, _Known(pipeline, {}))

    def learn(self, trial: Trial) -> None:
        """Its result: what was not measured in full is forgotten, it may be worth another try."""
        shape = _shape(trial.pipeline)
        if not trial.comparable:
            self._shapes.get(shape, {}).pop(trial.number, None)
            return
        for known in list(self._shapes.get(shape, {}).values()):
            if known.metrics:
                self._compare(shape, known, trial)
        self._put(trial.number, _Known(trial.pipeline, trial.metrics))

    def repeats(self, pipeline: Pipeline) -> bool:
        """Whether it differs from one known or under way only in what makes no difference."""
        shape = _shape(pipeline)
        for known in self._shapes.get(shape, {}).values():
            differing = _differences(known.pipeline, pipeline)
            if differing is not None and all(
                (alike := self._alike.get((shape, place))) is not None and alike.same(pair)
                for place, pair in differing.items()
            ):
                return True
        return False

    def _put(self, number: int, known: _Known) -> None:
        members = self._shapes.setdefault(_shape(known.pipeline), {})
        members[number] = known
        if len(members) > MOST_ALIKE:
            del members[min(members)]

    def _compare(self, shape: Shape, known: _Known, trial: Trial) -> None:
        differing = _differences(known.pipeline, trial.pipeline)
        if not differing:
            return
        if _agree(known.metrics, trial.metrics):
            for place, pair in differing.items():
                self._alike.setdefault((shape, place), _Alike()).join(pair)
        elif len(differing) == 1:
            place, pair = next(iter(differing.items()))
            if (shape, place) in self._alike:
                self._alike[shape, place].split(pair)


def _agree(one: Mapping[str, Measurement], other: Mapping[str, Measurement]) -> bool:
    """Whether nothing that both have differs beyond its errors, and something agrees."""
    shared: Sequence[str] = [
        name
        for name in one.keys() & other.keys()
        if name not in METRICS or METRICS.get(name).scale != "half"
    ]
    return bool(shared) and all(
        abs(one[name].mean - other[name].mean)
        <= ERRORS * math.hypot(one[name].stderr, other[name].stderr)
        for name in shared
    )
