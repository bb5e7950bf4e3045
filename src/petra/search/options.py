"""Options of a searcher: a frozen dataclass, from which validation and documentation derive.

For example::

    @dataclass(frozen=True)
    class WalkOptions(SearchOptions):
        steps: int = option(10, Integer(1, 100), "steps before a restart")
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from petra.core.errors import ConfigError, did_you_mean
from petra.core.pipeline import Value
from petra.core.text import printable, shown
from petra.space.domains import Domain, Real

V = TypeVar("V", bound=Value)
O = TypeVar("O", bound="SearchOptions")  # noqa: E741


@dataclass(frozen=True)
class SearchOptions:
    """Base of all options; by itself, of a searcher that has none.

    Raises ConfigError for a value out of limits.
    """

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            limits: Domain = f.metadata["limits"]
            value = getattr(self, f.name)
            if not limits.contains(value):
                raise ConfigError(f"{f.name}: got {shown(value)}", hint=f"allowed: {limits}")


def option(default: V, limits: Domain, doc: str) -> V:
    """Declare one option: a field of a `SearchOptions` dataclass."""
    declared: V = field(default=default, metadata={"limits": limits, "doc": doc})
    return declared


def read_options(kind: type[O], given: Mapping[str, object], *, where: str) -> O:
    """Options of `kind` from plain data.

    Raises ConfigError, beginning with the path `where`, for a bad one.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in fields:
            hint = did_you_mean(name, fields) if fields else "this searcher has no options"
            raise ConfigError(f"{where}.{printable(name)[:80]}: no such option", hint=hint)
        limits: Domain = fields[name].metadata["limits"]
        if not limits.contains(value):
            raise ConfigError(f"{where}.{name}: got {shown(value)}", hint=f"allowed: {limits}")
        values[name] = (
            float(value) if isinstance(limits, Real) and isinstance(value, int) else value
        )
    return kind(**values)
