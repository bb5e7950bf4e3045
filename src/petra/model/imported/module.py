"""The model that an ONNX file becomes: its operators in their order, its weights in layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from petra.core.errors import DataError, PetraError
from petra.core.text import first_line
from petra.model.imported.file import Port, Source
from petra.model.imported.operators import compute
from petra.model.imported.values import Unreadable, Value, tensor

FREE_BATCH = (
    "it has to take any number of items: export it with a free batch size,"
    " torch.onnx.export(..., dynamic_shapes=...) or, of the older exporter, dynamic_axes"
)


@dataclass(frozen=True)
class Step:
    """One operator of the file. `layer` is the name of the module that it is, '' where it has no
    weights of its own; what `done` names nobody reads afterwards.
    """

    op: str
    name: str
    layer: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    attributes: Mapping[str, Any]
    done: tuple[str, ...] = ()


class ImportedModel(nn.Module):
    """An ONNX file in PyTorch's layers. Called with its inputs by their public names, or in their
    order; returns its outputs by name.

    It computes what the file does in evaluation: dropout is gone, batch norms hold what they were
    exported with, and nothing says which of its numbers were weights that trained. So it is not
    trained further. `source` is the file; of `numbers` and `held`, the first are constants that
    steps read as numbers, the second names of parameters and buffers by those of the file.
    """

    def __init__(self, source: Source, inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> None:
        super().__init__()
        self.source, self.inputs, self.outputs = source, inputs, outputs
        self.steps: tuple[Step, ...] = ()
        self.numbers: dict[str, Value] = {}
        self.held: dict[str, str] = {}

    def forward(self, *given: Tensor, **named: Tensor) -> dict[str, Tensor]:
        values = self._given(given, named)
        for step in self.steps:
            found = self._run(step, values)
            values.update(zip(step.writes, found, strict=False))
            for name in step.done:
                values.pop(name, None)
        return {port.public: tensor(self._value(port.name, values)) for port in self.outputs}

    def _given(self, given: tuple[Tensor, ...], named: Mapping[str, Tensor]) -> dict[str, Value]:
        by_place = dict(zip([port.public for port in self.inputs], given, strict=False))
        inputs = {**by_place, **named}
        wanted = [port.public for port in self.inputs]
        if sorted(inputs) != sorted(wanted) or len(given) > len(wanted):
            raise DataError(
                f"{self.source.name} takes {', '.join(wanted)}; it was given"
                f" {', '.join(inputs) or 'nothing'}",
                hint="give a dict with these names, or tensors in this order",
            )
        return {port.name: inputs[port.public] for port in self.inputs}

    def _run(self, step: Step, values: Mapping[str, Value]) -> tuple[Value, ...]:
        inputs = [self._value(name, values) if name else None for name in step.reads]
        try:
            if not step.layer:
                return compute(step.op, step.attributes, inputs)
            found = self._modules[step.layer](*inputs)  # type: ignore[misc]
            return found if isinstance(found, tuple) else (found,)
        except (PetraError, MemoryError):
            raise
        except Unreadable as error:
            raise DataError(f"{self.source.name}: {step.name}: it is {error}") from error
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
            shapes = ", ".join(str(tuple(x.shape)) for x in inputs if isinstance(x, Tensor))
            raise DataError(
                f"{self.source.name}: {step.name} fails on {shapes or 'numbers'}:"
                f" {first_line(str(error))}",
                hint=FREE_BATCH,
            ) from error

    def _value(self, name: str, values: Mapping[str, Value]) -> Value:
        if name in values:
            return values[name]
        if name in self.numbers:
            return self.numbers[name]
        return getattr(self, self.held[name])

    def extra_repr(self) -> str:
        """The file: a model of the same layers that are connected in another way is another one."""
        return f"{self.source.name}, {len(self.steps)} operators, {self.source.digest[:16]}"
