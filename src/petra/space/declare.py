"""How a method, a loss or a distance declares its parameters: as fields of a frozen dataclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar, cast

from petra.core.errors import ConfigError, did_you_mean
from petra.core.pipeline import Value
from petra.space.domains import Choice, Domain
from petra.space.outline import ModelOutline
from petra.space.parameters import Parameter
from petra.space.space import Slot

V = TypeVar("V", bound=Value)
_KEY, _SLOTS = "petra", "petra slots"


@dataclass(frozen=True)
class FromModel:
    """A domain that the untouched model decides: `of(outline)`, and `unknown`, at least as wide,
    while there is no model to look at. `of` gives a domain for any model, whatever it lacks.
    """

    of: Callable[[ModelOutline], Domain]
    unknown: Domain


def where(holds: Callable[[ModelOutline], bool], domain: Choice, *values: Value) -> FromModel:
    """`domain`; without `values` for models of which `holds` is not true, where they cannot act or
    do nothing. A person may still set them, so give the whole `domain` as limits.
    """
    rest = replace(domain, values=tuple(v for v in domain.values if v not in values))
    return FromModel(lambda outline: domain if holds(outline) else rest, domain)


def has(*roles: str) -> Callable[[ModelOutline], bool]:
    """For `where`: whether the model has a module with one of these roles."""
    return lambda outline: bool(outline.of_role(*roles))


@dataclass(frozen=True)
class _Declaration:
    """What a field's metadata says of the parameters that it declares."""

    domain: Domain | FromModel
    limits: Domain | None
    doc: str
    when: Mapping[str, tuple[Value, ...] | Domain]
    scope: str = ""
    implied: bool = False
    each: Callable[[ModelOutline], Iterable[str]] | None = None
    default: Value = ""

    def parameters(
        self, name: str, default: Value, model: ModelOutline | None
    ) -> Iterator[Parameter]:
        domain = self.domain
        if isinstance(domain, FromModel):
            domain = domain.of(model) if model else domain.unknown
        default = self.default if self.each else default
        limits = self.limits or domain
        declared = Parameter(
            name, default, domain, limits, self.doc, self.when, self.scope, self.implied
        )
        if self.each is None:
            yield declared
            return
        for member in self.each(model) if model else ("*",):
            yield replace(declared, name=f"{name}.{member}")


def parameter(
    default: V,
    domain: Domain | FromModel,
    doc: str,
    *,
    limits: Domain | None = None,
    when: Mapping[str, tuple[Value, ...] | Domain] | None = None,
    scope: str = "",
    implied: bool = False,
) -> V:
    """Declare a parameter as a dataclass field, from which space, CLI, docs and validation all
    derive. What the arguments mean says `Parameter`. `default` lies in every domain that a
    `FromModel` may give.
    """
    meta = _Declaration(domain, limits, doc, when or {}, scope, implied)
    declared: V = field(default=default, metadata={_KEY: meta})
    return declared


def parameters(
    each: Callable[[ModelOutline], Iterable[str]],
    default: V,
    domain: Domain,
    doc: str,
    *,
    limits: Domain | None = None,
    when: Mapping[str, tuple[Value, ...] | Domain] | None = None,
) -> Mapping[str, V]:
    """Declare a family: a parameter "field.name" for each name, unique, that `each(outline)` gives,
    such as the paths of some modules. In the stage the field maps these names to their values; it
    lacks those that a stage was made without, and those that its spec leaves out by `when`.

    >>> layers: Mapping[str, bool] = parameters(
    ...     lambda model: [m.path for m in model.blocks], True, BOOLEAN, "whether it is treated"
    ... )
    """
    meta = _Declaration(domain, limits, doc, when or {}, each=each, default=default)
    declared: Mapping[str, V] = field(default_factory=dict, metadata={_KEY: meta})
    return declared


def parameters_of(declaring: Any, model: ModelOutline | None = None) -> tuple[Parameter, ...]:
    """The parameters that a dataclass declares, in order; of an instance, with its values as
    defaults. Other fields are left out. `model` is the outline of the untouched model.
    """
    found: list[Parameter] = []
    for f in dataclasses.fields(declaring):
        if _KEY in f.metadata:
            default = f.default if isinstance(declaring, type) else getattr(declaring, f.name)
            found += f.metadata[_KEY].parameters(f.name, cast(Value, default), model)
    return tuple(found)


def fields_of(declaring: Any, values: Mapping[str, Value]) -> dict[str, Any]:
    """The fields of a dataclass from the values of its parameters: members of a family together,
    and what the class does not declare in the field that `slots` made.
    """
    declared = {
        f.name: f.metadata[_KEY] for f in dataclasses.fields(declaring) if _KEY in f.metadata
    }
    room = next(iter(slots_of(declaring)), None)
    found: dict[str, Any] = {name: {} for name, d in declared.items() if d.each}
    if room is not None:
        found[room] = {}
    for name, value in values.items():
        head, dot, member = name.partition(".")
        if dot and head in declared:
            found[head][member] = value
        elif name in declared or room is None:
            found[name] = value
        else:
            found[room][name] = value
    return found


def slots(*room: Slot) -> Mapping[str, Value]:
    """Declare a field with room for parameters that the task brings; it holds their values."""
    made: Mapping[str, Value] = field(
        default_factory=dict, kw_only=True, hash=False, metadata={_SLOTS: room}
    )
    return made


def slots_of(declaring: Any) -> dict[str, tuple[Slot, ...]]:
    """The fields of a dataclass made by `slots`, by name: one at most."""
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
        return replace(self, **{name: values[name] for name in own})

    def setting(self, **values: Value) -> Self:
        """The same with other values of its parameters. Raises ConfigError for names it lacks."""
        known = [p.name for p in parameters_of(self)]
        for name in values.keys() - set(known):
            raise ConfigError(
                f"{type(self).__name__}.{name}: there is no such parameter",
                hint=did_you_mean(name, known),
            )
        return self.having(values)
