"""The genotype: an immutable sequence of stages with their parameters.

Canonical JSON (sorted keys, no white space, floats rounded to 6 significant digits) gives every
pipeline one spelling, so its SHA-256 is a stable key across processes, machines and Python
versions.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from petra.core.errors import ConfigError
from petra.core.text import printable, shown

Value = bool | int | float | str


def canonical_value(value: Value) -> Value:
    """`value` as pipelines hold it: floats have 6 significant digits and zero has no sign."""
    if isinstance(value, float):
        return float(f"{value:.6g}") + 0.0
    return value


@dataclass(frozen=True, eq=False)
class StageSpec:
    """One stage: the method's registered name and its parameter values (JSON scalars only)."""

    kind: str
    params: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.params.items():
            if not isinstance(value, bool | int | float | str):
                raise ConfigError(
                    f"{printable(self.kind)}.{printable(name)}: got {shown(value)}, "
                    "a parameter is a bool, int, float or string"
                )
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(
                    f"{printable(self.kind)}.{printable(name)}: got {shown(value)}",
                    hint="give a finite number",
                )
        ordered = {name: canonical_value(self.params[name]) for name in sorted(self.params)}
        object.__setattr__(self, "params", MappingProxyType(ordered))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StageSpec) and self.canonical() == other.canonical()

    def __hash__(self) -> int:
        return hash(self.canonical())

    def __reduce__(self) -> tuple[object, ...]:
        return (StageSpec, (self.kind, dict(self.params)))

    def replace(self, **params: Value) -> StageSpec:
        """The same stage with some parameters changed."""
        return StageSpec(self.kind, {**self.params, **params})

    def as_dict(self) -> dict[str, Value | dict[str, Value]]:
        return {"stage": self.kind, **({"params": dict(self.params)} if self.params else {})}

    def canonical(self) -> str:
        return self._canonical

    @cached_property
    def _canonical(self) -> str:
        return json.dumps([self.kind, dict(self.params)], separators=(",", ":"), allow_nan=False)

    def __str__(self) -> str:
        inside = ", ".join(
            f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.params.items()
        )
        return f"{self.kind}({inside})"


@dataclass(frozen=True)
class Pipeline:
    """A sequence of stages, run left to right. The empty pipeline is the untouched model."""

    stages: tuple[StageSpec, ...] = ()

    def __len__(self) -> int:
        return len(self.stages)

    def __iter__(self) -> Iterator[StageSpec]:
        return iter(self.stages)

    def canonical(self) -> str:
        """The one JSON spelling of this pipeline."""
        return "[" + ",".join(stage.canonical() for stage in self.stages) + "]"

    @property
    def key(self) -> str:
        """64 hexadecimal digits, equal exactly for equal pipelines."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    def prefix(self, length: int) -> Pipeline:
        """The first `length` stages."""
        return Pipeline(self.stages[:length])

    def prefixes(self) -> tuple[Pipeline, ...]:
        """All non-empty prefixes, shortest first; the last one is the pipeline itself."""
        return tuple(self.prefix(n) for n in range(1, len(self) + 1))

    def as_list(self) -> list[dict[str, Value | dict[str, Value]]]:
        """Plain data for JSON or YAML; `Pipeline.from_list` reads it back."""
        return [stage.as_dict() for stage in self.stages]

    @staticmethod
    def from_list(items: object) -> Pipeline:
        """Read `as_list` data. Raises ConfigError naming the position of whatever is malformed."""
        if not isinstance(items, list):
            raise ConfigError(
                f"pipeline: got {type(items).__name__}, a pipeline is a list of stages"
            )
        stages = []
        for i, item in enumerate(items):
            if isinstance(item, str):
                item = {"stage": item}
            if not isinstance(item, Mapping) or not isinstance(item.get("stage"), str):
                raise ConfigError(
                    f"pipeline[{i}]: got {shown(item)}", hint="write {stage: NAME, params: {...}}"
                )
            unknown = set(item) - {"stage", "params"}
            params = item.get("params", {})
            if unknown or not isinstance(params, Mapping):
                raise ConfigError(
                    f"pipeline[{i}]: got {shown(item)}",
                    hint="allowed keys: stage, params (a mapping)",
                )
            stages.append(StageSpec(item["stage"], dict(params)))
        return Pipeline(tuple(stages))

    def __str__(self) -> str:
        return " -> ".join(map(str, self.stages)) if self.stages else "(untouched model)"
