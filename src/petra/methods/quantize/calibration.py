"""Calibration data, and what a calibrated graph would compute with its values rounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx._pytree import tree_flatten_spec
from torchao.quantization.pt2e.observer import ObserverBase

from petra.core.errors import StageRefused
from petra.methods.base import Context
from petra.methods.quantize.tails import with_tails
from petra.methods.quantize.worse import Moved, RiseOfError, Worse, moved
from petra.runtimes.quiet import quiet
from petra.runtimes.tracing import failing_place, summary
from petra.tasks.data import Batch, Split
from petra.tasks.inputs import Inputs, batch_size, call, map_inputs, named
from petra.tasks.pairs import joined

BATCH = 64


@dataclass(frozen=True)
class Calibration:
    """`samples` items of the shuffled training split (or all of it), without augmentation; of a
    task that is judged by its error the most extreme ones among them (`with_tails`).

    Every iteration yields the same batches of inputs.
    """

    context: Context
    samples: int

    def __iter__(self) -> Iterator[Inputs]:
        return (inputs for inputs, _ in self.pairs(self.samples))

    def pairs(self, items: int) -> Iterator[Batch]:
        """The first `items` of them, at most `samples`, with their targets."""
        left = self.samples
        for inputs, target in self._split.batches(BATCH, seed=self._seed):
            taken = min(left - self.samples + items, left, batch_size(inputs))
            if taken <= 0:
                return
            self.context.progress(self.samples - left, self.samples, "calibration")
            yield map_inputs(inputs, lambda t, k=taken: t[:k]), target[:taken]  # type: ignore[misc]
            left -= taken
        if left == self.samples:
            raise StageRefused("the training split yields no calibration samples")

    @property
    def _seed(self) -> int:
        return self.context.seed_for("calibration")

    @cached_property
    def _split(self) -> Split:
        task = self.context.task
        if not task.judged_by_error:
            return task.train
        return with_tails(task.train, self.samples, seed=self._seed)


def first_items(batches: Iterable[Inputs], items: int) -> list[Inputs]:
    """Batches with at most `items` items in all."""
    found: list[Inputs] = []
    for inputs in batches:
        taken = min(items, batch_size(inputs))
        if taken == 0:
            break
        found.append(map_inputs(inputs, lambda t, k=taken: t[:k]))  # type: ignore[misc]
        items -= taken
    return found


def measured(calibration: Iterable[Inputs], items: int) -> tuple[list[Inputs], Worse]:
    """The first `items`, and what counts as worse for what is predicted of them: how far outputs
    move that the task looks at; where it is judged by its error the rise of that.
    """
    if not isinstance(calibration, Calibration):
        return first_items(calibration, items), moved
    task = calibration.context.task
    if not task.judged_by_error:
        return first_items(calibration, items), Moved(task)
    pairs = list(calibration.pairs(items))
    targets = torch.cat([target for _, target in pairs])
    return [inputs for inputs, _ in pairs], RiseOfError(task, targets)


def one_batch(batches: list[Inputs]) -> Inputs:
    """One batch of all items; of items of different length, of those as long as the first batch."""
    shapes = [[t.shape[1:] for t in named(batch).values()] for batch in batches]
    alike = [b for b, shape in zip(batches, shapes, strict=True) if shape == shapes[0]]
    return joined(alike, where="calibration")


def observe(prepared: nn.Module, calibration: Iterable[Inputs]) -> int:
    """Show all batches to the observers; the number of items.

    Raises StageRefused when there are none.
    """
    samples = 0
    with torch.no_grad():
        for inputs in calibration:
            _run(prepared, inputs)
            samples += batch_size(inputs)
    if not samples:
        raise StageRefused("there is no calibration data", hint="pass at least one batch of inputs")
    return samples


def _run(graph: nn.Module, inputs: Inputs) -> None:
    try:
        with quiet():
            call(graph, inputs)
    except RuntimeError as error:
        raise StageRefused(
            f"the graph of the model fails on {batch_size(inputs)} training items"
            f"{failing_place(graph, inputs)}: {summary(error)}",
            hint=(
                "traced once, from the first validation items, it must do for all others what it"
                " did for those"
            ),
        ) from error


def in_order(graph: GraphModule, inputs: Inputs) -> list[Tensor]:
    """A batch's tensors in the order of the graph's placeholders, for `torch.fx.Interpreter`."""
    args = inputs if isinstance(inputs, tuple) else () if isinstance(inputs, dict) else (inputs,)
    return tree_flatten_spec((args, inputs if isinstance(inputs, dict) else {}), graph._in_spec)


class Rounding(nn.Module):
    """Quantize and dequantize as an observer chose; the identity while `on` is False."""

    def __init__(self, observer: ObserverBase) -> None:
        super().__init__()
        self.scale, zero_point = observer.calculate_qparams()
        self.zero_point = zero_point.int()
        self.range = (observer.quant_min, observer.quant_max)
        self.axis: int | None = getattr(observer, "ch_axis", None)
        self.on = True

    def forward(self, x: Tensor) -> Tensor:
        if not self.on:
            return x
        if self.axis is None:
            return torch.fake_quantize_per_tensor_affine(
                x, float(self.scale), int(self.zero_point), *self.range
            )
        return torch.fake_quantize_per_channel_affine(
            x, self.scale, self.zero_point, self.axis, *self.range
        )


@contextmanager
def rounding(prepared: GraphModule) -> Iterator[dict[str, Rounding]]:
    """Inside, observers of a calibrated graph round what passes; afterwards they observe again.

    Yields the roundings by the name of their submodule; several names may mean one.
    """
    observers = {name: m for name, m in prepared._modules.items() if isinstance(m, ObserverBase)}
    made = {id(observer): Rounding(observer) for observer in observers.values()}
    roundings = {name: made[id(observer)] for name, observer in observers.items()}
    prepared._modules.update(roundings)
    try:
        yield roundings
    finally:
        prepared._modules.update(observers)
