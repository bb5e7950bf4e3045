"""Making a model of what a file holds: constants are computed once, nodes with weights become
layers, the rest stays operators.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from petra.core.text import first_line, printable
from petra.model.imported.elementwise import kind_of
from petra.model.imported.file import OnnxFile, Operation, read_file
from petra.model.imported.layers import LAYERS, Weights, layer_of, linear, norm
from petra.model.imported.module import ImportedModel, Step
from petra.model.imported.norms import Spelling
from petra.model.imported.operators import OPERATORS, compute
from petra.model.imported.tensors import OnnxRefused
from petra.model.imported.values import Unreadable, Value, is_static, row, shape_of, static

# Operators whose further outputs are made too.
_SEVERAL = frozenset({"Split", "TopK", "LSTM", "GRU", "RNN"})
_NUMBERS = {"Resize": (1, 2, 3), "OneHot": (2,)}
"""Inputs that say what an operator does, by operator."""

MOST_FOLDED = 2**27
"""Elements of a constant that a file computes of others."""


def read_model(path: str | Path) -> ImportedModel:
    """The model in an ONNX file, in evaluation mode. Raises OnnxRefused, with the operator or the
    tensor, for what petra does not read.

    Costs a pass over the weights and, for a while, twice their memory. Nothing of the file is
    executed: operators are looked up in petra's own table.
    """
    return build(read_file(Path(path)))


def build(file: OnnxFile) -> ImportedModel:
    """See `read_model`."""
    model = ImportedModel(file.source, file.inputs, file.outputs)
    with torch.no_grad():
        built = _Building(file, model)
        for index, operation in enumerate(file.operations):
            try:
                built.add(index, _modern(operation, file.opset))
            except Unreadable as error:
                raise built.refused(operation, f"it is {error}") from error
    model.steps = _freed(built.steps, {port.name for port in file.outputs})
    built.hold()
    return model.eval()


@dataclass
class _Building:
    """What is made so far: constants by name, steps, and which `Add`s are part of a layer."""

    file: OnnxFile
    model: ImportedModel
    steps: list[Step] = field(default_factory=list)
    known: dict[str, Value] = field(default_factory=dict)
    turned: dict[str, str] = field(default_factory=dict)
    absorbed: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        for name, array in self.file.tensors.items():
            self.known[name] = _constant(array)
        self.weights = Weights(self.known, self.turned)
        self.readers: dict[str, list[int]] = defaultdict(list)
        for index, operation in enumerate(self.file.operations):
            for name in filter(None, operation.reads):
                self.readers[name].append(index)
        self.public = {port.name for port in self.file.outputs}
        for operation in self.file.operations:
            if operation.op == "Constant":
                self.known[operation.writes[0]] = _stated(operation, self)
        operations = self.file.operations
        self.spelling = Spelling(operations, self.readers, self.known, self.public)

    def refused(self, operation: Operation, why: str, hint: str = "") -> OnnxRefused:
        usual = "see docs/onnx.md for the operators that are read"
        return OnnxRefused(f"{self.file.source.path}: {operation}: {why}", hint=hint or usual)

    def add(self, index: int, operation: Operation) -> None:
        if index in self.absorbed or self._is_constant(operation):
            return
        if found := self.spelling.norm_at(index):
            self.absorbed |= found.parts
            module = norm(self.weights, found.scale, found.bias, found.epsilon)
            self._layer(module, operation, index, (operation.reads[0],), (found.output,))
            return
        self._check(operation)
        layer = layer_of(operation, self.weights) if operation.op in LAYERS else None
        if layer is None:
            self._step(operation, "", operation.reads, operation.writes)
            return
        module, reads = layer
        writes = operation.writes
        if isinstance(module, nn.Linear) and module._parameters["bias"] is None:
            module, writes = self._with_bias(module, operation)
        self._layer(module, operation, index, reads, writes)

    def _layer(
        self,
        module: nn.Module,
        operation: Operation,
        index: int,
        reads: tuple[str, ...],
        writes: tuple[str, ...],
    ) -> None:
        name = _attribute(self.model, self._called(operation, index))
        self.model.add_module(name, module)
        self._step(operation, name, reads, writes)

    def _step(
        self, operation: Operation, layer: str, reads: tuple[str, ...], writes: tuple[str, ...]
    ) -> None:
        if not layer and operation.op not in OPERATORS:
            raise self._unknown(operation)
        for place in _NUMBERS.get(operation.op, ()):
            self._as_numbers(reads[place] if place < len(reads) else "")
        kept = {k: v for k, v in operation.attributes.items() if not layer}
        self.steps.append(Step(operation.op, str(operation), layer, reads, writes, kept))

    def _as_numbers(self, name: str) -> None:
        """Let a constant row be read as numbers: of a tensor, nothing is known in a trace."""
        value = self.known.get(name)
        if isinstance(value, Tensor) and value.ndim == 1:
            self.known[name] = row(value.tolist())

    def _unknown(self, operation: Operation) -> OnnxRefused:
        if operation.op in LAYERS:
            return self.refused(operation, "its weights are computed, where petra needs constants")
        close = get_close_matches(operation.op, [*OPERATORS, *LAYERS], n=1)
        return self.refused(
            operation,
            "petra does not read this operator",
            f"express it by others, {close[0]} for example" if close else "",
        )

    def _check(self, operation: Operation) -> None:
        if operation.op == "Cast":
            kind_of(operation.attributes["to"])
        further = [w for w in operation.writes[1:] if w and operation.op not in _SEVERAL]
        read = next((w for w in further if self.readers[w] or w in self.public), None)
        if read is not None:
            raise self.refused(operation, f"its further output {printable(read)!r} is read")

    def _is_constant(self, operation: Operation) -> bool:
        """Compute what depends on constants alone."""
        if operation.op == "Constant":
            return True
        reads = [name for name in operation.reads if name]
        computed = operation.op in OPERATORS and operation.op != "Einsum"
        if not reads or not computed or any(n not in self.known for n in reads):
            return False
        self._check(operation)
        inputs = [self.known[name] if name else None for name in operation.reads]
        if _spread(inputs) > MOST_FOLDED:
            raise self.refused(operation, "makes a constant that is far larger than its inputs")
        try:
            found = compute(operation.op, operation.attributes, inputs)
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, MemoryError) as error:
            raise self.refused(operation, f"fails: {first_line(str(error))}") from error
        for name, value in zip(operation.writes, found, strict=False):
            if isinstance(value, Tensor) and value.numel() > MOST_FOLDED:
                raise self.refused(operation, f"makes a constant of {value.numel()} elements")
            self.known[name] = value
        if operation.op == "Transpose" and _is_matrix(inputs[0]):
            self.turned[operation.writes[0]] = reads[0]
        return True

    def _with_bias(
        self, module: nn.Linear, operation: Operation
    ) -> tuple[nn.Module, tuple[str, ...]]:
        """The layer with the bias that the next node adds, if it does and nobody else reads the
        product.
        """
        product = operation.writes[0]
        readers = self.readers[product]
        if len(readers) != 1 or product in self.public:
            return module, operation.writes
        after = self.file.operations[readers[0]]
        others = [name for name in after.reads if name != product]
        if after.op != "Add" or len(others) != 1 or not self._is_bias(others[0], module):
            return module, operation.writes
        self.absorbed.add(readers[0])
        return linear(self.weights, operation.reads[1], others[0], turned=True), after.writes

    def _is_bias(self, name: str, module: nn.Linear) -> bool:
        value = self.known.get(name)
        shape = (module.out_features,)
        return isinstance(value, Tensor) and value.shape == shape and value.dtype == torch.float32

    def _called(self, operation: Operation, index: int) -> str:
        """A name for a layer: that of its weight in PyTorch, of its node, or its number."""
        weight = next((n for n in operation.reads if n.endswith(".weight")), "")
        return weight.removesuffix(".weight") or operation.name or f"{operation.op}_{index}"

    def hold(self) -> None:
        """Give the model the constants that its steps read."""
        wanted = [n for step in self.steps for n in step.reads if n in self.known]
        wanted += [n for n in self.public if n in self.known]
        names: dict[int, str] = {}
        for name in dict.fromkeys(wanted):
            value = self.known[name]
            if is_static(value):
                self.model.numbers[name] = value
                continue
            if id(value) not in names:
                own = names[id(value)] = _attribute(self.model, f"constant_{name}")
                if value.is_floating_point():
                    self.model.register_parameter(own, nn.Parameter(value.clone()))
                else:
                    self.model.register_buffer(own, value.clone())
            self.model.held[name] = names[id(value)]


def _constant(array: np.ndarray) -> Value:
    found = static(array)
    return torch.from_numpy(array) if found is None else found


def _stated(operation: Operation, built: _Building) -> Value:
    """The value of a Constant."""
    for name, value in operation.attributes.items():
        if name == "value":
            return _constant(np.asarray(value))
        if name in ("value_int", "value_float"):
            return value
        if name == "value_ints":
            return row(value)
        if name == "value_floats":
            return torch.tensor(value, dtype=torch.float32)
    raise built.refused(operation, "holds no number")


def _spread(inputs: Iterable[Value]) -> int:
    """Elements of what inputs make that are spread over one another, which could be many times
    theirs.
    """
    sizes: dict[int, int] = defaultdict(lambda: 1)
    for value in inputs:
        for axis, size in enumerate(reversed(shape_of(value) if value is not None else ())):
            sizes[axis] = max(sizes[axis], size)
    return math.prod(sizes.values())


def _is_matrix(value: Value) -> bool:
    return isinstance(value, Tensor) and value.ndim == 2 and value.dtype == torch.float32


def _modern(operation: Operation, opset: int) -> Operation:
    """An operator of an older version, with attributes that say what is different."""
    more: dict[str, Any] = {}
    if operation.op in ("Softmax", "LogSoftmax") and opset < 13:
        more["flat"] = True
    if operation.op == "Split":
        more["outputs"] = len(operation.writes)
    if operation.op == "Upsample" or (operation.op == "Resize" and opset < 11):
        operation = replace(operation, op="Resize")
        more |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return replace(operation, attributes={**operation.attributes, **more}) if more else operation


def _freed(steps: Iterable[Step], kept: set[str]) -> tuple[Step, ...]:
    """Steps that say which values nobody reads after them."""
    listed = list(steps)
    left = Counter(name for step in listed for name in step.reads)
    found = []
    for step in listed:
        left.subtract(step.reads)
        names = dict.fromkeys((*step.reads, *step.writes))
        done = tuple(n for n in names if n and not left[n] and n not in kept)
        found.append(replace(step, done=done))
    return tuple(found)


def _attribute(model: nn.Module, name: str) -> str:
    """A name for a layer or tensor that the model does not have yet."""
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")[:80] or "layer"
    found, number = plain, 1
    while hasattr(model, found):
        found, number = f"{plain}_{number}", number + 1
    return found
