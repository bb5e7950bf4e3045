"""How a method, a loss or a distance declares its parameters: as fields of a frozen dataclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar, cast

from petra.core.errors import ConfigError, did_you_mean
from petra.core.pipeline import Value
from petra.space.domains import Domain, Parameter
from petra.space.space import Slot

V = TypeVar("V", bound=Value)
_KEY, _SLOTS = "petra", "petra slots"


def parameter(
    default: V,
    domain: Domain,
    doc: str,
    *,
    limits: Domain | None = None,
    when: Mapping[str, tuple[Value, ...] | Domain] | None = None,
    scope: str = "",
) -> V:
    """Declare a parameter as a dataclass field, from which space, CLI, docs and validation all
    derive. What the arguments mean says `Parameter`.
    """
    meta = {
        "domain": domain,
        "limits": limits or domain,
        "doc": doc,
        "when": when or {},
        "scope": scope,
    }
    declared: V = field(default=default, metadata={_KEY: meta})
    return declared


def parameters_of(declaring: Any) -> tuple[Parameter, ...]:
    """The parameters that a dataclass declares, in order; of an instance, with its values as
    defaults. Other fields are left out.
    """
    found = []
    for f in dataclasses.fields(declaring):
        if _KEY in f.metadata:
            default = f.default if isinstance(declaring, type) else getattr(declaring, f.name)
            found.append(Parameter(f.name, cast(Value, default), **f.metadata[_KEY]))
    return tuple(found)


def slots(*room: Slot) -> Mapping[str, Value]:
    """Declare a field with room for parameters that the task brings; it holds their values."""
    made: Mapping[str, Value] = field(
        default_factory=dict, kw_only=True, hash=False, metadata={_SLOTS: room}
    )
    return made


def slots_of(declaring: Any) -> dict[str, tuple[Slot, ...]]:
    """The fields of a dataclass made by `slots`, by name."""
    return {
        f.name: f.metadata[_SLOTS] for f in dataclasses.fields(declaring) if _SLOTS in f.metadata
    }


@dataclass(frozen=True)
class Settable:
    """A value with parameters of its own, declared as fields made by `parameter`.

    Fields without one, such as the horizon of a forecast, are part of the value and not searched.
    Raises ConfigError for a value outside its limits.
    """

    def __post_init__(self) -> None:
        for p in parameters_of(self):
            if not p.limits.contains(p.default):
                raise ConfigError(
                    f"{type(self).__name__}.{p.name}: got {p.default!r}",
                    hint=f"allowed: {p.limits}",
                )

    def having(self, values: Mapping[str, Value]) -> Self:
        """The same with those of `values` that are parameters of it, whatever else they are."""
        own = {p.name for p in parameters_of(self)} & values.keys()
        return dataclasses.replace(self, **{name: values[name] for name in own})

    def setting(self, **values: Value) -> Self:
        """The same with other values of its parameters. Raises ConfigError for names it lacks."""
        known = [p.name for p in parameters_of(self)]
        for name in values.keys() - set(known):
            raise ConfigError(
                f"{type(self).__name__}.{name}: there is no such parameter",
                hint=did_you_mean(name, known),
            )
        return self.having(values)
