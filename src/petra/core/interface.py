"""What a model takes and returns: tensors by name, their axes by name, and the sizes each takes."""

from __future__ import annotations

import ast
import contextlib
import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

BATCH, LENGTH = "batch", "length"
FREE_SIZE = 16
"""What a free size is taken to be where nobody states one, such as a sequence's length."""

TENSOR, TUPLE, DICT = "tensor", "tuple", "dict"
"""How a model is called: ``model(x)``, ``model(*inputs)``, ``model(**inputs)``."""

_LARGEST = 2**20
_OPERATIONS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}


@dataclass(frozen=True)
class Axis:
    """One axis of a tensor: its name ('' where it has none) and its sizes, from `least` to `most`.

    `most` is None where no bound is known. Of an axis along which items differ in length, the
    bounds are those of the data, and `stated` are the lengths at which speed is measured.
    """

    name: str = ""
    least: int = 1
    most: int | None = None
    stated: tuple[int, ...] = ()

    @staticmethod
    def fixed(size: int, name: str = "") -> Axis:
        return Axis(name, size, size)

    @property
    def size(self) -> int | None:
        """The only size it takes, None where it is free."""
        return self.least if self.least == self.most and not self.stated else None

    def __str__(self) -> str:
        """ "3", "batch", "length 4 to 90", "?"."""
        if self.size is not None:
            return str(self.size)
        known = f" {self.least} to {self.most}" if self.most is not None else ""
        return f"{self.name or '?'}{known}"

    def example(self) -> int:
        """A size to try it at: its own, the first that is stated, else what its name says."""
        if self.size is not None:
            return self.size
        return self.stated[0] if self.stated else _reckoned(self.name)


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. `dtype` is NumPy's name of its type, or "bfloat16" or "string"; `batch`
    is the axis along which the items of a batch lie, None where it has no part for each item.
    """

    name: str
    dtype: str
    axes: tuple[Axis, ...]
    batch: int | None = None

    def __str__(self) -> str:
        """ "mask: bool (batch, length 4 to 90)"."""
        return f"{self.name}: {self.dtype} ({', '.join(map(str, self.axes))})"

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Sizes, None where they are free."""
        return tuple(axis.size for axis in self.axes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(axis.name for axis in self.axes)

    @property
    def free(self) -> tuple[int, ...]:
        """Numbers of the axes whose size is free."""
        return tuple(i for i, axis in enumerate(self.axes) if axis.size is None)

    def example(self, batch: int) -> tuple[int, ...]:
        """A shape that it takes, with `batch` items where their number is free."""
        sizes = [axis.example() for axis in self.axes]
        if self.batch in self.free:
            sizes[self.batch] = batch
        return tuple(sizes)


@dataclass(frozen=True)
class Interface:
    """All inputs and outputs of a model, in their order.

    `judged` are the names of the outputs that a task looks at; `structure` says how the model is
    called. Made once from task and model (`petra.intake`), or from what a file declares
    (`petra.measure.interface`), whose outputs are then not known.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...] = ()
    judged: tuple[str, ...] = ()
    structure: str = DICT
    free_batch: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = {s.name: s.batch for s in self.inputs if s.batch is not None and s.batch in s.free}
        object.__setattr__(self, "free_batch", found)

    def input(self, name: str) -> TensorSpec:
        return next(spec for spec in self.inputs if spec.name == name)

    @property
    def fixed_batch(self) -> int | None:
        """The number of items in every call, where a model takes no other and says so."""
        if self.free_batch:
            return None
        sizes = {s.axes[s.batch].size for s in self.inputs if s.batch is not None}
        return sizes.pop() if len(sizes) == 1 else None

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths at which speed is measured, the typical one first; () for items of one shape."""
        found = (axis.stated for spec in self.inputs for axis in spec.axes if axis.stated)
        return next(found, ())

    def shapes(self, batch: int) -> dict[str, tuple[int, ...]]:
        """A shape for every input: equal sizes for equal names."""
        return {spec.name: spec.example(batch) for spec in self.inputs}

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as JSON has it."""
        plain = asdict(self)
        del plain["free_batch"]
        listed: dict[str, Any] = json.loads(json.dumps(plain))
        return listed

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> Interface:
        """Inverse of `as_dict`, after JSON too. Raises KeyError or TypeError for anything else."""
        return Interface(
            tuple(map(_spec, plain["inputs"])),
            tuple(map(_spec, plain["outputs"])),
            tuple(map(str, plain["judged"])),
            str(plain["structure"]),
        )


def _spec(plain: Mapping[str, Any]) -> TensorSpec:
    axes = tuple(
        Axis(str(a["name"]), int(a["least"]), a["most"], tuple(map(int, a["stated"])))
        for a in plain["axes"]
    )
    return TensorSpec(str(plain["name"]), str(plain["dtype"]), axes, plain["batch"])


def judged_output(names: Sequence[str]) -> str:
    """The output a task looks at unless it says otherwise: ``logits`` if there is one, else the
    first."""
    return "logits" if "logits" in names else names[0]


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
