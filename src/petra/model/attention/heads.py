"""The heads of one attention layer as tensors and attributes: removing some of them, or silencing
them for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from petra.model.kinds import Convolution, is_transposed_linear

Undo = Callable[[], None]


@dataclass(frozen=True)
class Part:
    """A tensor with entries of all heads: `dim` is a run of `units * block` entries per block."""

    layer: str
    name: str
    dim: int
    blocks: tuple[int, ...]

    def entries(self, units: int, chosen: Collection[int]) -> list[int]:
        """Positions along `dim` of the `chosen` of all `units`."""
        found = []
        start = 0
        for block in self.blocks:
            found += [start + unit * block + i for unit in chosen for i in range(block)]
            start += units * block
        return found


@dataclass(frozen=True)
class Heads:
    """One reading of an attention layer.

    `units` counts what can be removed: heads, or a key/value head with the `shared` query heads
    that use it. `size` is the channels of one head. `reader` is the path of the layer that mixes
    the heads' outputs. `parts` are all tensors with entries per head, `counts` the attributes
    (module path, name, value per unit) that follow from their number.
    """

    path: str
    units: int
    shared: int
    size: int
    reader: str
    parts: tuple[Part, ...]
    counts: tuple[tuple[str, str, int], ...]


class Edits:
    """Entries of dictionaries that were replaced, and what was there before."""

    def __init__(self) -> None:
        self._done: list[tuple[dict[str, Any], str, Any]] = []

    def put(self, held: dict[str, Any], name: str, value: object) -> None:
        self._done.append((held, name, held[name]))
        held[name] = value

    def undo(self) -> None:
        while self._done:
            held, name, value = self._done.pop()
            held[name] = value


def take_out(model: nn.Module, heads: Heads, units: Collection[int]) -> Undo:
    """Remove `units` from the layer, in place; calling the result puts everything back."""
    keep = [u for u in range(heads.units) if u not in units]
    edits = Edits()
    for part in heads.parts:
        module = model.get_submodule(part.layer)
        held: Any = module._parameters if part.name in module._parameters else module._buffers
        old = held[part.name]
        index = torch.tensor(part.entries(heads.units, keep), device=old.device)
        new = old.detach().index_select(part.dim, index)
        parameter = isinstance(old, nn.Parameter)
        edits.put(
            held,
            part.name,
            nn.Parameter(new, requires_grad=old.requires_grad) if parameter else new,
        )
        for name, value in _declared_sizes(module):
            edits.put(vars(module), name, value)
    for path, name, per_unit in heads.counts:
        edits.put(vars(model.get_submodule(path)), name, per_unit * len(keep))
    return edits.undo


@contextmanager
def gated(model: nn.Module, heads: Heads, gate: Tensor) -> Iterator[None]:
    """Inside, each unit's outputs are multiplied by its entry of `gate` (units,) before mixing.

    Zero is what removing the unit must amount to; the gradient with respect to the gate is its
    first-order effect.
    """

    def multiply(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x = inputs[0]
        factor = gate.to(x).repeat_interleave(heads.shared * heads.size)
        if isinstance(module, Convolution):
            factor = factor.view(-1, *[1] * len(module.kernel_size))
        return (x * factor, *inputs[1:])

    handle = model.get_submodule(heads.reader).register_forward_pre_hook(multiply)
    try:
        yield
    finally:
        handle.remove()


def _declared_sizes(layer: nn.Module) -> list[tuple[str, int]]:
    """The sizes a layer keeps beside its weight, by attribute."""
    names = {
        nn.Linear: ("out_features", "in_features"),
        Convolution: ("out_channels", "in_channels"),
    }
    for kind, (outputs, inputs) in names.items():
        if isinstance(layer, kind):
            return [
                (outputs, weight_width(layer, inputs=False)),
                (inputs, weight_width(layer, inputs=True)),
            ]
    if is_transposed_linear(layer):
        return [("nf", weight_width(layer, inputs=False)), ("nx", weight_width(layer, inputs=True))]
    if isinstance(layer, nn.Embedding):
        return [("embedding_dim", layer.weight.shape[1]), ("num_embeddings", layer.weight.shape[0])]
    return []


def weight_dim(layer: nn.Module, *, inputs: bool) -> int:
    """The dimension of a layer's weight that runs over its inputs, or over its outputs."""
    return int(inputs != is_transposed_linear(layer))


def weight_width(layer: nn.Module, *, inputs: bool) -> int:
    """How many inputs, or outputs, its weight has."""
    weight: Any = layer.weight
    return int(weight.shape[weight_dim(layer, inputs=inputs)])


def within(path: str, outer: str) -> bool:
    """Whether the module at `path` is the one at `outer` or inside it."""
    return not outer or path == outer or path.startswith(f"{outer}.")
