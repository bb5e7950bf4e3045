"""The interface of a model file, found in what it declares."""

from __future__ import annotations

import re
from collections.abc import Sequence

from petra.core.interface import Axis, Interface, TensorSpec
from petra.runtimes.base import InputSpec

_BATCH = re.compile(r"\w*batch\w*|n|b|bs|(n|num)?_?(samples|examples|items)", re.IGNORECASE)


def interface_of(inputs: Sequence[InputSpec], outputs: Sequence[InputSpec] = ()) -> Interface:
    """Find the batch among the sizes that a file declares.

    It is the size called so, wherever it is; else the free first sizes; else, where the outputs
    have another free size of the same input and not the first one, that other: time comes first in
    some recurrent networks. A size that one input has twice, as a matrix of distances, is none.
    """
    axes = _called_batch(inputs) or _first_axes(inputs, outputs)
    if not axes and _has_fixed_batch(inputs, outputs):
        axes = {spec.name: 0 for spec in inputs if spec.shape}
    return Interface(tuple(_as_declared(spec, axes.get(spec.name)) for spec in inputs))


def _as_declared(spec: InputSpec, batch: int | None) -> TensorSpec:
    names = spec.names or ("",) * len(spec.shape)
    axes = tuple(
        Axis(name) if size is None else Axis.fixed(size, name)
        for size, name in zip(spec.shape, names, strict=True)
    )
    return TensorSpec(spec.name, spec.dtype, axes, batch)


def _symbols(spec: InputSpec) -> list[str | None]:
    """Of every dimension: None for a fixed size, else its name, '' where it has none."""
    names = spec.names or ("",) * len(spec.shape)
    return [
        None if size is not None else name for size, name in zip(spec.shape, names, strict=True)
    ]


def _once(inputs: Sequence[InputSpec], symbol: str | None) -> bool:
    """Whether `symbol` is a free size that no input has twice."""
    if symbol is None:
        return False
    return not symbol or all(_symbols(spec).count(symbol) <= 1 for spec in inputs)


def _called_batch(inputs: Sequence[InputSpec]) -> dict[str, int]:
    """The axes that are called batch; with them, free first axes of other inputs that have no
    name.
    """
    found: dict[str, int] = {}
    for spec in inputs:
        for axis, symbol in enumerate(_symbols(spec)):
            if symbol and _BATCH.fullmatch(symbol) and _once(inputs, symbol):
                found.setdefault(spec.name, axis)
    if found:
        for spec in inputs:
            if _symbols(spec)[:1] == [""]:
                found.setdefault(spec.name, 0)
    return found


def _first_axes(inputs: Sequence[InputSpec], outputs: Sequence[InputSpec]) -> dict[str, int]:
    first = {spec.name: 0 for spec in inputs if spec.shape and _once(inputs, _symbols(spec)[0])}
    shown = [set(_symbols(spec)) - {None, ""} for spec in outputs if spec.shape]
    common = set[str | None].intersection(*shown) if shown else set()
    leading = {_symbols(spec)[0] for spec in inputs if spec.name in first}
    if first and "" not in leading and not leading & set[str | None]().union(*shown):
        for symbol in (s for spec in inputs for s in _symbols(spec)):
            if symbol in common and _once(inputs, symbol):
                return {
                    spec.name: _symbols(spec).index(symbol)
                    for spec in inputs
                    if symbol in _symbols(spec)
                }
    return first


def _has_fixed_batch(inputs: Sequence[InputSpec], outputs: Sequence[InputSpec]) -> bool:
    """Whether the first size of all inputs and outputs is one number."""
    firsts = {spec.shape[0] for spec in (*inputs, *outputs) if spec.shape}
    return len(firsts) == 1 and None not in firsts and any(spec.shape for spec in inputs)
