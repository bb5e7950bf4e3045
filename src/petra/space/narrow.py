"""Narrowing a stage's domains: what a user writes under ``space.stages``, what a preset has and
what a task dictates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from petra.core.errors import ConfigError, did_you_mean
from petra.core.kernels import Kernels
from petra.core.pipeline import Value, canonical_value
from petra.core.text import printable, shown
from petra.space.domains import Choice, Domain, Integer, Real
from petra.space.ladder import Ladder
from petra.space.parameters import Parameter
from petra.space.space import Slot, StageCard

DEFAULT_LOSS = "default"  # the first of a task's losses, in pipelines
_NOTHING: Mapping[str, Value] = MappingProxyType({})


def narrow(card: StageCard, ranges: Mapping[str, object], *, where: str) -> StageCard:
    """The card with the domains of some parameters replaced.

    A single value fixes a parameter, two numbers are an interval (for numeric parameters), any
    other list is a set of choices. "layers.*" is for all members of a family that have no entry of
    their own. Raises ConfigError with the path of what is wrong.
    """
    known = {p.name for p in card.parameters} | {p.family for p in card.parameters if p.family}
    for name in ranges:
        if name not in known and not any(p.stands_for(name) for p in card.parameters):
            raise ConfigError(
                f"{where}.{printable(name)[:80]}: {card.name} has no such parameter",
                hint=did_you_mean(name, known),
            )
    return replace(card, parameters=tuple(_within(p, ranges, where=where) for p in card.parameters))


def narrow_as_far(card: StageCard, ranges: Mapping[str, object], *, where: str) -> StageCard:
    """`narrow` for ranges that were written for any model, task and runtime: of each, what lies in
    the parameter's domain, and nothing where that is nothing. A single value counts wherever a
    person could set it.
    """
    kept = {p.name: _common(p, ranges[p.name]) for p in card.parameters if p.name in ranges}
    return narrow(card, {name: values for name, values in kept.items() if values}, where=where)


def _common(parameter: Parameter, given: object) -> list[Any]:
    """The part of a range that the parameter has."""
    domain = parameter.domain
    if not isinstance(given, list | tuple):
        return [given] if parameter.limits.contains(given) else []
    values: list[Any] = list(given)
    if len(values) == 2 and isinstance(domain, Real | Integer):
        low, high = max(values[0], domain.low), min(values[1], domain.high)
        return [low, high] if low < high else [low] if low == high else []
    return [value for value in values if domain.contains(value)]


def _within(parameter: Parameter, ranges: Mapping[str, object], *, where: str) -> Parameter:
    """The parameter in the range it is given by its own name or its family's. Ranges of members
    that only the model can name are checked, and no more.
    """
    for name in ranges:
        if name != parameter.name and parameter.stands_for(name):
            _narrowed(parameter, ranges[name], where=f"{where}.{printable(name)[:80]}")
    name = parameter.name if parameter.name in ranges else parameter.family
    if name not in ranges:
        return parameter
    return _narrowed(parameter, ranges[name], where=f"{where}.{printable(name)[:80]}")


def _narrowed(parameter: Parameter, given: object, *, where: str) -> Parameter:
    values: list[Any] = list(given) if isinstance(given, list | tuple) else [given]
    for value in values:
        wanted = (
            float(value) if isinstance(parameter.default, float) and _is_small(value) else value
        )
        if not parameter.limits.contains(wanted):
            raise ConfigError(f"{where}: got {shown(value)}", hint=f"allowed: {parameter.limits}")
    if isinstance(parameter.default, float):
        values = [float(v) if _is_small(v) else v for v in values]
    if not values:
        raise ConfigError(f"{where}: got an empty list", hint=f"allowed: {parameter.limits}")
    domain = _domain(parameter.domain, values, where=where)
    default = _default(parameter.default, domain, values)
    implied = parameter.implied and default == parameter.default  # else nobody would know it
    return replace(parameter, domain=domain, default=default, implied=implied)


def _is_small(value: object) -> bool:
    """Whether it is an integer that a float can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _domain(old: Domain, values: list[Value], *, where: str) -> Domain:
    if len(values) == 2 and isinstance(old, Real | Integer):
        low, high = values
        if low >= high:  # type: ignore[operator]
            raise ConfigError(
                f"{where}: got [{low}, {high}]", hint="an interval is [low, high] with low < high"
            )
        if isinstance(old, Integer):
            return Integer(int(low), int(high), old.log and int(low) > 0)
        return Real(float(low), float(high), old.log and float(low) > 0)
    if isinstance(old, Ladder):
        return Ladder(tuple(sorted(set(values), key=float)))
    return Choice(tuple(values))


def _default(default: Value, domain: Domain, values: list[Value]) -> Value:
    """The usual one; where the domain lacks it, the nearest of an interval, the first of values."""
    if domain.contains(default):
        return default
    if isinstance(domain, Real | Integer) and isinstance(default, int | float):
        return domain.high if default > domain.high else domain.low
    return values[0]


@dataclass(frozen=True)
class Brought:
    """What a task brings to the cards of stages: the names of its losses, the default first, with
    the parameters of each, and the parameters of its distance between predictions.
    """

    losses: Mapping[str, tuple[Parameter, ...]]
    distance: tuple[Parameter, ...] = ()


def fix_for_task(
    card: StageCard,
    brought: Brought,
    *,
    ignores: frozenset[str] = frozenset(),
    preferred: Mapping[str, Value] = _NOTHING,
) -> StageCard:
    """Give parameters of scope "loss" the task's losses to choose from, fill the slots, make values
    that are `preferred` on this task the defaults, and half of what is drawn, and pin what is in
    `ignores`, which then nobody may set: pipelines that differ in nothing else would do the same.

    Raises ConfigError when a parameter of a loss or distance has the name of another one.
    """
    parameters = []
    names = tuple(brought.losses)
    for p in card.parameters:
        if p.scope == "loss":
            p = replace(p, domain=Choice((p.default, *names[1:])))
        elif p.name in ignores:
            p = _pinned(p, p.default)
        elif p.name in preferred:
            p = _preferring(p, preferred[p.name])
        parameters.append(p)
    for slot in card.slots:
        for p in _filled(slot, brought):
            if any(p.name == other.name for other in parameters):
                raise ConfigError(
                    f"{card.name}.{p.name}: the task's {slot.kind} has a parameter of that name"
                    " too",
                    hint=f"call the parameter of the {slot.kind} something else",
                )
            parameters.append(p)
    return replace(card, parameters=tuple(parameters), slots=())


def _preferring(parameter: Parameter, value: Value) -> Parameter:
    """With that value, where its domain has it, as the default and half of what is drawn."""
    domain = parameter.domain
    if not domain.contains(value):
        return parameter
    if isinstance(domain, Choice) and len(domain.values) > 1:
        domain = replace(domain, usual=value)
    return replace(parameter, domain=domain, default=value)


def _pinned(parameter: Parameter, value: Value) -> Parameter:
    only = Choice((value,))
    return replace(parameter, domain=only, limits=only)


def _filled(slot: Slot, brought: Brought) -> Iterator[Parameter]:
    """The parameters that belong in the slot, those that are always there first."""
    found = _of_losses(brought.losses) if slot.kind == "loss" else _of_distance(slot, brought)
    for name, value in slot.always.items():
        if name in found:
            yield replace(found.pop(name), implied=False)
        else:
            only = Choice((value,))
            when = {"loss": (DEFAULT_LOSS,)} if slot.kind == "loss" else slot.when
            yield Parameter(name, value, only, only, "nothing to this task", when)
    yield from found.values()


def _of_distance(slot: Slot, brought: Brought) -> dict[str, Parameter]:
    return {p.name: _brought(p, slot.when) for p in brought.distance}


def _of_losses(losses: Mapping[str, tuple[Parameter, ...]]) -> dict[str, Parameter]:
    """The parameters of all losses, each with the names of the losses that have it. Raises
    ConfigError when two losses declare one differently.
    """
    found: dict[str, Parameter] = {}
    holders: dict[str, list[str]] = {}
    for i, (loss, parameters) in enumerate(losses.items()):
        for p in parameters:
            if replace(found.setdefault(p.name, p), when=p.when) != p:
                raise ConfigError(
                    f"loss {loss}: its parameter {p.name} is another one than that of"
                    f" {holders[p.name][-1]}",
                    hint="call one of them something else, or declare both alike",
                )
            holders.setdefault(p.name, []).extend([DEFAULT_LOSS, loss] if i == 0 else [loss])
    return {n: _brought(p, {"loss": tuple(holders[n])}) for n, p in found.items()}


def _brought(parameter: Parameter, when: Mapping[str, tuple[Value, ...] | Domain]) -> Parameter:
    return replace(
        parameter,
        default=canonical_value(parameter.default),
        when={**parameter.when, **when},
        implied=True,
    )


def fix_for_runtime(card: StageCard, runtime: str, kernels: Kernels) -> StageCard:
    """Leave parameters to whose scope the runtime's kernels set limits (`Kernels.choices`) what it
    can run, and give those of scope "weight codes" its own largest code.

    Raises ConfigError when one is left with nothing, so that the stage is of no use there.
    """
    if reason := lacks_kernels(card, runtime, kernels):
        raise ConfigError(
            f"{card.name}: {reason}", hint="leave the stage out, or choose another target.runtime"
        )
    parameters = []
    for p in card.parameters:
        values = _runnable(p, p.domain, kernels)
        if p.scope == "weight codes":
            only = kernels.largest_weight
            p = replace(p, domain=Choice((only,)), default=only)
        elif values is not None:
            kept, settable = Choice(values), Choice(_runnable(p, p.limits, kernels) or values)
            default = _default(p.default, kept, list(values))
            implied = p.implied and default == p.default
            p = replace(p, domain=kept, limits=settable, default=default, implied=implied)
        parameters.append(p)
    return replace(card, parameters=tuple(parameters))


def lacks_kernels(card: StageCard, runtime: str, kernels: Kernels) -> str:
    """Why the stage is of no use on a runtime with these kernels; '' when it is of some."""
    for p in card.parameters:
        if _runnable(p, p.domain, kernels) == ():
            return f"the runtime {runtime} computes in none of {p.domain}"
    return ""


def _runnable(parameter: Parameter, domain: Domain, kernels: Kernels) -> tuple[Value, ...] | None:
    """Those values of a domain of the parameter that the kernels can run, None where they set no
    limits to it.
    """
    allowed = kernels.choices.get(parameter.scope)
    if allowed is None or not isinstance(domain, Choice):
        return None
    return tuple(v for v in domain.values if v in allowed)
