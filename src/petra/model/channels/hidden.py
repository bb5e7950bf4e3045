"""Hidden units of a recurrent layer: who reads them, found by trying.

The layer's results are replaced by random numbers, those of some units by others than before, and
it is seen which inputs of which layers change. Numbered in binary, a few passes tell the unit of
every input that is made of one alone, however the model's code slices, pools, pads and joins what
it gets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from petra.model.channels.breakage import BREAKAGE, outputs_of
from petra.model.surgery import evaluating
from petra.tasks.inputs import Inputs

_AXES: tuple[tuple[type[nn.Module], int], ...] = (
    (nn.Linear, -1),
    (nn.RNNBase, -1),
    (nn.Conv1d, -2),
    (nn.BatchNorm1d, 1),
)
"""Layers that can lose inputs, with the axis of the inputs that counts them."""

SPREAD, OTHER = 4.0, -1.5
"""The spread of the random numbers, and what other ones are times them: of another sign and another
size, so that no rectifier, clip or absolute value hides a unit.
"""

OUTPUT = "its units reach the model's output, or code that is no layer's"


@dataclass(frozen=True)
class Reader:
    """A layer that reads hidden units, and which of them each of its inputs is: (inputs,) int64,
    -1 where it is none."""

    path: str
    units: Tensor


def readers_of(model: nn.Module, path: str, example: Inputs) -> tuple[list[Reader], str]:
    """All layers that read the results of the recurrent layer at `path`, and '', or none and why
    its units cannot be followed.

    `example` has a few items. Leaves `model` untouched. Cost: 2 log2(hidden) + 1 passes for every
    layer that comes after another.
    """
    layer = model.get_submodule(path)
    if getattr(layer, "proj_size", 0):
        return [], "its states are projections of its units"
    try:
        with evaluating(model), torch.no_grad():
            return _readers(model, _Watch(model, path, example))
    except BREAKAGE as error:
        return [], f"the model does not run with other states ({type(error).__name__})"


def _readers(model: nn.Module, watch: _Watch) -> tuple[list[Reader], str]:
    found: dict[str, Reader] = {}
    while True:
        base, runs = watch.run(None), [watch.run(mask) for mask in watch.masks]
        changed = [p for p in base.inputs if p not in found and watch.changes(p, base, runs)]
        if not changed:
            break
        fresh = False
        for reader in [watch.sources(p, base, runs) for p in changed]:
            if reader is None:
                continue
            found[reader.path], fresh = reader, True
            if not isinstance(model.get_submodule(reader.path), nn.BatchNorm1d):
                watch.held[reader.path] = base.inputs[reader.path]
        if not fresh:
            return [], f"its units meet before they reach {changed[0]!r}"
    same = all(
        torch.equal(a, b) for run in runs for a, b in zip(base.outputs, run.outputs, strict=True)
    )
    if watch.path in found:
        return [], "it reads its own results"
    if not same or not found:
        return [], OUTPUT if not same else "nothing reads its units"
    return list(found.values()), ""


@dataclass
class _Run:
    """Inputs of layers, one entry for each call, in the order of first calls; and outputs."""

    inputs: dict[str, list[Any]] = field(default_factory=dict)
    outputs: list[Tensor] = field(default_factory=list)


class _Watch:
    """Passes of a model with random results of one of its layers. Layers in `held` are given the
    inputs there, whatever reaches them."""

    def __init__(self, model: nn.Module, path: str, example: Inputs) -> None:
        self.model, self.path, self.example = model, path, example
        self.held: dict[str, list[Any]] = {}
        layer: Any = model.get_submodule(path)
        self.hidden = int(layer.hidden_size)
        units = torch.arange(self.hidden)
        bits = [(units >> b) & 1 == 1 for b in range(max(1, math.ceil(math.log2(self.hidden))))]
        self.masks = [mask for bit in bits for mask in (bit, ~bit)]

    def run(self, mask: Tensor | None) -> _Run:
        """One pass; `mask` says of each unit whether it is another than at first."""
        run = _Run()
        with self._hooks(run, mask):
            run.outputs = outputs_of(self.model, self.example)
        return run

    @contextmanager
    def _hooks(self, run: _Run, mask: Tensor | None) -> Iterator[None]:
        numbers = torch.Generator().manual_seed(0)

        def instead(value: Any) -> Any:
            if isinstance(value, PackedSequence):
                return value._replace(data=instead(value.data))
            if isinstance(value, tuple):
                return tuple(map(instead, value))
            base = (SPREAD * torch.randn(value.shape, generator=numbers)).to(value)
            if mask is None:
                return base
            here = mask.to(value.device).repeat(value.shape[-1] // self.hidden)
            return torch.where(here, OTHER * base, base)

        def recorded(path: str) -> Callable[..., Any]:
            def hook(module: nn.Module, args: tuple[Any, ...]) -> Any:
                if not args:
                    return None
                calls = run.inputs.setdefault(path, [])
                calls.append(args[0])
                kept = self.held.get(path)
                return (kept[len(calls) - 1], *args[1:]) if kept else None

            return hook

        layer = self.model.get_submodule(self.path)
        handles = [layer.register_forward_hook(lambda _, args, results: instead(results))]
        handles += [
            module.register_forward_pre_hook(recorded(path))
            for path, module in self.model.named_modules()
            if axis_of(module) is not None
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def changes(self, path: str, base: _Run, runs: Sequence[_Run]) -> bool:
        """Whether what reaches a layer depends on any unit."""
        return any(bool(_differ(base.inputs[path], run.inputs[path], -1).any()) for run in runs)

    def sources(self, path: str, base: _Run, runs: Sequence[_Run]) -> Reader | None:
        """The unit of each input, None where one is made of several."""
        axis = axis_of(self.model.get_submodule(path))
        assert axis is not None
        differ = torch.stack([_differ(base.inputs[path], r.inputs[path], axis) for r in runs])
        ones, zeros = differ[0::2], differ[1::2]
        depends = (ones | zeros).any(0)
        if not ((ones ^ zeros).all(0) | ~depends).all():
            return None
        places = 2 ** torch.arange(len(ones)).unsqueeze(1)
        units = torch.where(depends, (ones * places).sum(0), -1)
        return Reader(path, units) if int(units.max()) < self.hidden else None


def axis_of(module: nn.Module) -> int | None:
    """The axis of a layer's input that counts what it can lose, None for any other module."""
    if isinstance(module, nn.Conv1d) and module.groups != 1:
        return None
    return next((axis for kind, axis in _AXES if isinstance(module, kind)), None)


def _differ(a: Sequence[Any], b: Sequence[Any], axis: int) -> Tensor:
    """(features,) whether an index of the axis differs in any call."""
    found: Tensor | None = None
    for one, other in zip(a, b, strict=True):
        x, y = (v.data if isinstance(v, PackedSequence) else v for v in (one, other))
        here = (x != y).movedim(axis, 0).reshape(x.shape[axis], -1).any(1).cpu()
        found = here if found is None else found | here
    assert found is not None
    return found


def columns(units: Tensor, gone: frozenset[int]) -> Tensor:
    """(inputs,) whether each input stays when the units `gone` go."""
    return torch.tensor([int(unit) not in gone for unit in units])
