"""The interface of a model, read off a task's data and the model's outputs."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from petra.core.interface import BATCH, LENGTH, Axis, Interface, TensorSpec
from petra.core.ragged import stated_lengths
from petra.tasks.base import Task
from petra.tasks.inputs import (
    Inputs,
    batch_interface,
    batch_size,
    call,
    map_inputs,
    named_outputs,
    type_name,
)
from petra.tasks.ragged import RaggedItems


def inputs_of(task: Task, first: Inputs) -> Interface:
    """The inputs of a task's model, from its data: a first batch of training, and all lengths."""
    found = batch_interface(first)
    sources = [split.source for _, split in task.splits()]
    ragged = [source.ragged for source in sources if isinstance(source, RaggedItems)]
    if not ragged:
        return found
    lengths = [data.lengths for data in ragged]
    val = task.val.source.ragged if isinstance(task.val.source, RaggedItems) else ragged[0]
    least, most = min(int(x.min()) for x in lengths), max(int(x.max()) for x in lengths)
    axis = Axis(LENGTH, least, most, stated_lengths(val.lengths))
    places = dict.fromkeys(val.values, val.padding.axis) | {val.padding.mask: 0}
    specs = []
    for spec in found.inputs:
        axes = list(spec.axes)
        if spec.name in places:
            place = places[spec.name]
            axes[place + (place >= 0)] = axis
        specs.append(replace(spec, axes=tuple(axes)))
    return replace(found, inputs=tuple(specs))


@torch.no_grad()
def with_outputs(inputs: Interface, task: Task, model: nn.Module, first: Inputs) -> Interface:
    """`inputs_of` with the outputs of the model, which is run on `first` and on twice as many
    items; of a ragged task, on longer ones too. Axes are known by the sizes that change. Raises
    what the model raises.
    """
    source = task.val.source
    if isinstance(source, RaggedItems):
        pair = source.example(2), source.example(4, longer=1)
    else:
        pair = map_inputs(first, torch.clone), map_inputs(first, lambda t: torch.cat([t, t]))
    small, large = (named_outputs(call(model, inputs)) for inputs in pair)
    n = batch_size(pair[0])
    outputs = tuple(_output(name, t, large[name], n) for name, t in small.items() if name in large)
    judged = task.judged(tuple(spec.name for spec in outputs))
    return replace(inputs, outputs=outputs, judged=judged)


def _output(name: str, small: Tensor, large: Tensor, items: int) -> TensorSpec:
    shapes = list(zip(small.shape, large.shape, strict=False))
    batch = next((i for i, sizes in enumerate(shapes) if sizes == (items, 2 * items)), None)
    axes = []
    for i, (a, b) in enumerate(shapes):
        name_of = BATCH if i == batch else LENGTH if b == a + 1 else ""
        axes.append(Axis.fixed(a) if a == b else Axis(name_of))
    return TensorSpec(name, type_name(small), tuple(axes), batch)
