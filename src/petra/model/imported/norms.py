"""Layer norms that a file spells out, as all did before opset 17: means, differences, squares.

As one layer, a stage can move scales into it, and a runtime gets it back as one operator.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from petra.model.imported.file import Operation
from petra.model.imported.values import Value, numbers, shape_of


@dataclass(frozen=True)
class SpelledNorm:
    """A norm over the last axis: the numbers of its operators, names of its gain and shift, and of
    what it makes.
    """

    parts: frozenset[int]
    scale: str
    bias: str
    epsilon: float
    output: str


@dataclass(frozen=True)
class Spelling:
    """A graph to find norms in: who reads a value, which values are constants, and which are read
    from outside.
    """

    operations: Sequence[Operation]
    readers: Mapping[str, Sequence[int]]
    known: Mapping[str, Value]
    public: Collection[str]

    def norm_at(self, start: int) -> SpelledNorm | None:
        """The norm (x - E x) / sqrt(E (x - E x)^2 + epsilon) * scale + bias that begins with the
        operator `start`, None where there is none, or where something else reads its insides.
        """
        mean = self.operations[start]
        if not self._averages(mean):
            return None
        x, m = mean.reads[0], mean.writes[0]
        subs = self.readers[m]
        if m in self.public or any(self._reads(i) != ("Sub", (x, m)) for i in subs):
            return None
        centred = {self.operations[i].writes[0] for i in subs}
        users = sorted({i for name in centred for i in self.readers[name]})
        if len(users) != 2 or centred & set(self.public):
            return None
        square, divide = users if self.operations[users[1]].op == "Div" else users[::-1]
        path = self._path(square, ("ReduceMean", "Add", "Sqrt", "Div", "Mul", "Add"))
        if path is None or path[3] != divide or not self._squares(square, centred):
            return None
        average, add, _, _, times, plus = path
        epsilon = self._constant(add)
        scale, bias = self._constant(times), self._constant(plus)
        divided, deviation = self.operations[divide].reads[0], self.operations[path[2]].writes[0]
        right = divided in centred and self.operations[divide].reads[1] == deviation
        if not (right and self._averages(self.operations[average]) and self._is_one(epsilon)):
            return None
        if not (self._is_row(scale) and self._is_row(bias)) or not self._alike(scale, bias):
            return None
        parts = frozenset({start, *subs, square, *path})
        output = self.operations[plus].writes[0]
        return SpelledNorm(parts, scale, bias, numbers(self.known[epsilon])[0], output)

    def _reads(self, index: int) -> tuple[str, tuple[str, ...]]:
        return self.operations[index].op, self.operations[index].reads

    def _averages(self, node: Operation) -> bool:
        """Whether a node is a mean over the last axis, which is kept."""
        axes = node.attributes.get("axes")
        if axes is None and len(node.reads) > 1 and node.reads[1] in self.known:
            axes = numbers(self.known[node.reads[1]])
        return node.op == "ReduceMean" and axes == [-1] and node.attributes.get("keepdims", 1) == 1

    def _squares(self, index: int, centred: Collection[str]) -> bool:
        op, reads = self._reads(index)
        if op == "Mul":
            return set(reads) <= set(centred)
        two = self.known.get(reads[1]) if op == "Pow" and len(reads) == 2 else None
        return two is not None and reads[0] in centred and numbers(two) == [2]

    def _path(self, start: int, operators: Sequence[str]) -> list[int] | None:
        """The one reader after the other from `start` on, if they are these operators and none of
        the values between them is read elsewhere.
        """
        found = [start]
        for op in operators:
            made = self.operations[found[-1]].writes[0]
            after = self.readers[made]
            if len(after) != 1 or made in self.public or self.operations[after[0]].op != op:
                return None
            found.append(after[0])
        return found[1:]

    def _constant(self, index: int) -> str:
        """The one operand that is a constant, '' where there is none."""
        return next((name for name in self.operations[index].reads if name in self.known), "")

    def _is_one(self, name: str) -> bool:
        return name in self.known and len(numbers(self.known[name])) == 1

    def _is_row(self, name: str) -> bool:
        value = self.known.get(name)
        return isinstance(value, Tensor) and value.ndim == 1 and value.dtype == torch.float32

    def _alike(self, a: str, b: str) -> bool:
        return shape_of(self.known[a]) == shape_of(self.known[b])
