"""Domains of stage parameters: what may be set, what the search draws from, and how it takes a
small step.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from petra.core.pipeline import Value, canonical_value


class Domain(ABC):
    """A set of values. `sample` and `perturb` stay inside it; `perturb` never returns the value it
    was given unless the domain has no other. Its steps are `size` times as long as usual, where
    values have a distance.

    `encode` writes a value as `width` numbers in [0, 1], `decode` reads them: what they were made
    from, and for any other numbers a value nearby. A value outside is taken for the nearest inside.
    """

    @property
    @abstractmethod
    def width(self) -> int: ...

    @abstractmethod
    def encode(self, value: Value) -> tuple[float, ...]: ...

    @abstractmethod
    def decode(self, numbers: Sequence[float]) -> Value: ...

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> Value: ...

    @abstractmethod
    def perturb(self, value: Value, rng: np.random.Generator, size: float = 1.0) -> Value: ...

    @abstractmethod
    def contains(self, value: object) -> bool: ...

    @abstractmethod
    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Choice(Domain):
    """One of a few unordered values (all of one type), encoded as one number each, 1 for the one
    it is. `usual`, when given, is one of them that half of the draws are, for options that most
    good pipelines do without.
    """

    values: tuple[Value, ...]
    usual: Value | None = None

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a Choice needs at least one value")
        object.__setattr__(self, "values", tuple(map(canonical_value, self.values)))
        if self.usual is not None:
            object.__setattr__(self, "usual", canonical_value(self.usual))
            if not self.contains(self.usual):
                raise ValueError(f"{self.usual!r} is none of {self}")

    def sample(self, rng: np.random.Generator) -> Value:
        if self.usual is not None and rng.random() < 0.5:
            return self.usual
        return self.values[int(rng.integers(len(self.values)))]

    def perturb(self, value: Value, rng: np.random.Generator, size: float = 1.0) -> Value:
        others = [v for v in self.values if v != value]
        return others[int(rng.integers(len(others)))] if others else value

    @property
    def width(self) -> int:
        return len(self.values)

    def encode(self, value: Value) -> tuple[float, ...]:
        at = next((i for i, v in enumerate(self.values) if _same(v, value)), -1)
        return tuple(float(i == at) for i in range(self.width))

    def decode(self, numbers: Sequence[float]) -> Value:
        return self.values[int(np.argmax(numbers))]

    def contains(self, value: object) -> bool:
        return any(_same(v, value) for v in self.values)

    def __str__(self) -> str:
        return "{" + ", ".join(map(str, self.values)) + "}"


def _same(one: object, other: object) -> bool:
    return type(one) is type(other) and one == other


@dataclass(frozen=True)
class Real(Domain):
    """A closed interval of floats; `log` draws uniformly in the logarithm.

    A step is Gaussian, 15% of the range.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low <= self.high or (self.log and self.low <= 0):
            raise ValueError(f"no such interval: {self}")
        # Bounds are spelled as pipelines spell floats, so that a value at a bound is inside when
        # read back.
        object.__setattr__(self, "low", canonical_value(float(self.low)))
        object.__setattr__(self, "high", canonical_value(float(self.high)))

    def _to(self, x: float) -> float:
        return math.log(x) if self.log else x

    def _from(self, x: float) -> float:
        value = math.exp(x) if self.log else x
        return min(max(float(f"{value:.4g}"), self.low), self.high)

    def sample(self, rng: np.random.Generator) -> Value:
        return self._from(float(rng.uniform(self._to(self.low), self._to(self.high))))

    def perturb(self, value: Value, rng: np.random.Generator, size: float = 1.0) -> Value:
        span = self._to(self.high) - self._to(self.low)
        start = self._to(min(max(float(value), self.low), self.high))
        for _ in range(20):
            moved = self._from(start + float(rng.normal(0.0, 0.15 * size * span)))
            if moved != value:
                return moved
        return self.low if value != self.low else self.high

    @property
    def width(self) -> int:
        return 1

    def encode(self, value: Value) -> tuple[float, ...]:
        low, high = self._to(self.low), self._to(self.high)
        inside = min(max(float(value), self.low), self.high)
        return ((self._to(inside) - low) / (high - low) if high > low else 0.0,)

    def decode(self, numbers: Sequence[float]) -> Value:
        low, high = self._to(self.low), self._to(self.high)
        share = min(max(float(numbers[0]), 0.0), 1.0)
        if share in (0.0, 1.0):
            return self.high if share else self.low
        moved = low + share * (high - low)
        value = canonical_value(math.exp(moved) if self.log else moved)
        return min(max(float(value), self.low), self.high)

    def contains(self, value: object) -> bool:
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and self.low <= value <= self.high
        )

    def __str__(self) -> str:
        return f"[{self.low:g}, {self.high:g}]{' log' if self.log else ''}"


@dataclass(frozen=True)
class Integer(Domain):
    """A closed interval of integers; `log` as for Real. A step is a rounded Gaussian of at least
    one.
    """

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low <= self.high or (self.log and self.low <= 0):
            raise ValueError(f"no such interval: {self}")

    def sample(self, rng: np.random.Generator) -> Value:
        if self.log:
            drawn = math.exp(float(rng.uniform(math.log(self.low), math.log(self.high + 1))))
            return min(max(int(drawn), self.low), self.high)
        return int(rng.integers(self.low, self.high + 1))

    def perturb(self, value: Value, rng: np.random.Generator, size: float = 1.0) -> Value:
        if self.low == self.high:
            return self.low
        width = 0.3 * float(value) if self.log else 0.15 * (self.high - self.low)
        step = max(1, round(abs(float(rng.normal(0.0, size * width)))))
        sign = 1 if rng.random() < 0.5 else -1
        moved = int(value) + sign * step
        if not self.low <= moved <= self.high:
            moved = int(value) - sign * step
        moved = min(max(moved, self.low), self.high)
        if moved == value:
            moved = int(value) + 1 if value < self.high else int(value) - 1
        return moved

    @property
    def width(self) -> int:
        return 1

    def encode(self, value: Value) -> tuple[float, ...]:
        """The middle of the value's share of the draws."""
        inside = min(max(int(value), self.low), self.high) + 0.5
        if self.log:
            span = math.log(self.high + 1) - math.log(self.low)
            return ((math.log(inside) - math.log(self.low)) / span,)
        return ((inside - self.low) / (self.high + 1 - self.low),)

    def decode(self, numbers: Sequence[float]) -> Value:
        share = min(max(float(numbers[0]), 0.0), 1.0)
        if self.log:
            span = math.log(self.high + 1) - math.log(self.low)
            moved = math.floor(self.low * math.exp(share * span))
        else:
            moved = self.low + math.floor(share * (self.high + 1 - self.low))
        return min(max(moved, self.low), self.high)

    def contains(self, value: object) -> bool:
        return (
            isinstance(value, int)
            and not isinstance(value, bool)
            and self.low <= value <= self.high
        )

    def __str__(self) -> str:
        return f"[{self.low}, {self.high}]{' log' if self.log else ''}"


BOOLEAN = Choice((False, True))


@dataclass(frozen=True)
class Text(Domain):
    """Any text: for names that only the task or the model knows, described by `what`. Used as
    limits; what the search draws from is a Choice.
    """

    default: str
    what: str

    def sample(self, rng: np.random.Generator) -> Value:
        return self.default

    def perturb(self, value: Value, rng: np.random.Generator, size: float = 1.0) -> Value:
        return value

    @property
    def width(self) -> int:
        return 0

    def encode(self, value: Value) -> tuple[float, ...]:
        return ()

    def decode(self, numbers: Sequence[float]) -> Value:
        return self.default

    def contains(self, value: object) -> bool:
        return isinstance(value, str) and bool(value.strip())

    def __str__(self) -> str:
        return self.what
