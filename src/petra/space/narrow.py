"""Narrowing a stage's domains: what a user writes under ``space.stages`` and what a task
dictates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from petra.core.errors import ConfigError, did_you_mean
from petra.core.pipeline import Value
from petra.core.text import printable, shown
from petra.space.domains import Choice, Domain, Integer, Parameter, Real
from petra.space.space import StageCard


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
    return replace(parameter, domain=domain, default=_default(parameter.default, domain, values))


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
    return Choice(tuple(values))


def _default(default: Value, domain: Domain, values: list[Value]) -> Value:
    return default if domain.contains(default) else values[0]


def fix_for_task(card: StageCard, *, losses: tuple[str, ...], ignores: frozenset[str]) -> StageCard:
    """Give parameters of scope "loss" the task's losses to choose from, and pin what means nothing
    to the task, which then nobody may set: pipelines that differ in nothing else would do the same.
    """
    parameters = []
    for p in card.parameters:
        if p.scope == "loss":
            p = replace(p, domain=Choice((p.default, *losses[1:])))
        elif p.name in ignores:
            only = Choice((p.default,))
            p = replace(p, domain=only, limits=only)
        parameters.append(p)
    return replace(card, parameters=tuple(parameters))


def fix_for_runtime(card: StageCard, *, runtime: str, precisions: tuple[str, ...]) -> StageCard:
    """Leave parameters of scope "precision" the arithmetic the runtime has kernels for, and "half"
    where it is one.

    Raises ConfigError when one is left with nothing, so that the stage is of no use there.
    """
    if reason := lacks_kernels(card, runtime=runtime, precisions=precisions):
        raise ConfigError(
            f"{card.name}: {reason}", hint="leave the stage out, or choose another target.runtime"
        )
    parameters = []
    for p in card.parameters:
        if p.scope == "precision" and isinstance(p.domain, Choice):
            values = _runnable(p.domain, precisions)
            kept = Choice(values)
            p = replace(
                p, domain=kept, limits=kept, default=_default(p.default, kept, list(values))
            )
        parameters.append(p)
    return replace(card, parameters=tuple(parameters))


def lacks_kernels(card: StageCard, *, runtime: str, precisions: tuple[str, ...]) -> str:
    """Why the stage is of no use on a runtime that computes in `precisions`; '' when it is of
    some.
    """
    for p in card.parameters:
        if (
            p.scope == "precision"
            and isinstance(p.domain, Choice)
            and not _runnable(p.domain, precisions)
        ):
            return f"the runtime {runtime} computes in none of {p.domain}"
    return ""


def _runnable(domain: Choice, precisions: tuple[str, ...]) -> tuple[Value, ...]:
    return tuple(v for v in domain.values if v in ("half", *precisions))
