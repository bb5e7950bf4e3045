"""What a model file declares it takes, and where the batch is in it."""

from __future__ import annotations

import ast
import contextlib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from petra.runtimes.base import InputSpec

FREE_SIZE = 16  # for a free dimension that is not the batch, such as a sequence's length
_LARGEST = 2**20
_OPERATIONS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}
_BATCH = re.compile(r"\w*batch\w*|n|b|bs|(n|num)?_?(samples|examples|items)", re.IGNORECASE)


@dataclass(frozen=True)
class Interface:
    """The inputs of a file.

    axes: for the inputs that have one, the axis along which the items of a batch lie. Empty when
    the file leaves no batch size free; `fixed` is then the number of items it takes in every call,
    None when it does not say.
    """

    inputs: tuple[InputSpec, ...]
    axes: Mapping[str, int]
    fixed: int | None = None

    def shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        """A shape for every input: equal sizes for equal names, `FREE_SIZE` for what is not
        told.
        """
        return {spec.name: self._shape(spec, batch) for spec in self.inputs}

    def _shape(self, spec: InputSpec, batch: int) -> tuple[int, ...]:
        names = spec.names or ("",) * len(spec.shape)
        sizes = [
            _reckoned(name) if size is None else size
            for size, name in zip(spec.shape, names, strict=True)
        ]
        if spec.name in self.axes:
            sizes[self.axes[spec.name]] = batch
        return tuple(sizes)


def _reckoned(name: str) -> int:
    """What a free size is taken to be: `FREE_SIZE`, or what follows from it for one such as ``past
    + 1``.
    """
    if re.fullmatch(r"[\w \t+*-]{1,200}", name):
        with contextlib.suppress(SyntaxError, ValueError, RecursionError):
            size = _value(ast.parse(name.strip(), mode="eval").body)
            return size if 0 < size <= _LARGEST else FREE_SIZE
    return FREE_SIZE


def _value(node: ast.expr) -> int:
    """Of sums and products of numbers and names, every name standing for `FREE_SIZE`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return min(node.value, _LARGEST)
    if isinstance(node, ast.Name):
        return FREE_SIZE
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return min(_OPERATIONS[type(node.op)](_value(node.left), _value(node.right)), _LARGEST**2)
    raise ValueError("no sum or product")


def interface_of(inputs: Sequence[InputSpec], outputs: Sequence[InputSpec] = ()) -> Interface:
    """Find the batch among the sizes that a file declares.

    It is the size called so, wherever it is; else the free first sizes; else, where the outputs
    have another free size of the same input and not the first one, that other: time comes first in
    some recurrent networks. A size that one input has twice, as a matrix of distances, is none.
    """
    axes = _called_batch(inputs) or _first_axes(inputs, outputs)
    return Interface(tuple(inputs), axes, None if axes else _fixed_batch(inputs, outputs))


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


def _fixed_batch(inputs: Sequence[InputSpec], outputs: Sequence[InputSpec]) -> int | None:
    """The first size of all inputs and outputs, if that is one number."""
    firsts = {spec.shape[0] for spec in (*inputs, *outputs) if spec.shape}
    return firsts.pop() if len(firsts) == 1 and any(spec.shape for spec in inputs) else None
