"""The examination: what people bring is looked at once, and what petra works on afterwards is known
to be sound."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from petra.core.errors import DataError
from petra.core.interface import Interface
from petra.intake.batches import check_batches, check_padding, check_training_alone
from petra.intake.behaviour import MANY, Probe, check_finite, check_repeatable, run
from petra.intake.data import Inspector, probe
from petra.intake.kinds import as_task
from petra.intake.measures import check_judged, check_losses
from petra.intake.model import with_plain_layers, with_zeros_held, working_copy
from petra.intake.onnx_input import check_same
from petra.intake.pickling import check_sendable
from petra.model.copies.copying import copy_model
from petra.model.imported.module import ImportedModel
from petra.tasks.base import Task
from petra.tasks.data import Split
from petra.tasks.inputs import Inputs, named
from petra.tasks.interface import inputs_of, with_outputs
from petra.tasks.pairs import check_structure
from petra.tasks.ragged import RaggedItems
from petra.tasks.sources import Arrays


@dataclass(frozen=True)
class Examined:
    """What petra works on: a plain copy of the model, in evaluation mode on the CPU, and the task;
    what the model takes and returns; and remarks."""

    model: nn.Module
    task: Task
    interface: Interface
    remarks: tuple[str, ...] = ()


def examine(model: object, task: object) -> Examined:
    """Look at everything once: what the objects are, how the model behaves, what the data holds.

    Model, data and random state of the caller stay as they are. Raises DataError naming split, item
    or layer, the cause and the remedy. Costs one pass over the validation and the test split, and
    over the training split where it is in memory; about 300 items through the model; two copies of
    it for a while. Of the training split, every loss is tried on the first items.
    """
    judged = as_task(task)
    try:
        with _random_state_kept(), torch.no_grad():
            return _examine(model, judged)
    except RecursionError as error:
        raise DataError(
            "the model is nested deeper than Python's recursion limit",
            hint="put layers side by side in one nn.Sequential instead of inside one another",
        ) from error


def _examine(model: object, task: Task) -> Examined:
    copied, remarks = working_copy(model)
    check_sendable(copied, what="model")
    for name, split in task.splits():
        check_sendable(split.source, what=f"{name} split: data")
    for name, value in vars(task).items():
        if not isinstance(value, Split):
            check_sendable(value, what=f"task.{name}")
    first = task.train.head(2)
    converted = any("float32 copy" in remark for remark in remarks)
    _first_run(copy_model(copied), first, converted=converted)  # models may keep what they see
    folded = with_plain_layers(copied, first)
    trial = copy_model(copied)
    inputs = inputs_of(task, first)
    for name, split in task.splits():
        check_structure(split.head(1), inputs, where=f"{name} split, batch 0")
    tried = probe(task.val)
    check_repeatable(trial, tried)
    predictions = check_batches(trial, tried)
    if isinstance(copied, ImportedModel):
        remarks = (*remarks, *check_same(copied, tried, predictions))
    if isinstance(task.val.source, RaggedItems):
        check_padding(trial, task.val.source, predictions)
    width = predictions[:1]
    inspector = Inspector(task, trial, inputs, tried.inputs, width)
    smallest = {
        name: inspector.inspect(split, whole=name != "train") for name, split in task.splits()
    }
    check_finite(predictions, tried, trial)
    interface = with_outputs(inputs, task, trial, first)
    check_judged(interface)
    if smallest["train"] == 1:
        check_training_alone(trial, Probe("train", tried.inputs, MANY))
    check_losses(task, trial)
    held = with_zeros_held(copied)
    return Examined(copied, task, interface, (*remarks, *folded, *held, *_overlaps(task)))


def _first_run(model: nn.Module, first: Inputs, *, converted: bool) -> None:
    try:
        run(model, first, where="train split, batch 0")
    except DataError as error:
        hint = (
            "petra works on a float32 copy: let forward cast to the type of its weights,"
            " x.to(self.weight.dtype)"
        )
        raise DataError(error.message, hint=hint if converted else error.hint) from error


def _overlaps(task: Task) -> Iterator[str]:
    """A remark on each pair of splits that is one and the same data."""
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        if _data(getattr(task, a)) == _data(getattr(task, b)):
            yield f"{a} and {b} are the same data: what is measured on it says nothing of new data"


def _data(split: Split) -> object:
    """Equal for splits on the same memory or the same object."""
    source = split.source
    if isinstance(source, RaggedItems):
        return id(source.ragged)
    if isinstance(source, Arrays):
        return tuple((t.data_ptr(), tuple(t.shape)) for t in named(source.inputs).values())
    return id(source.dataset if isinstance(source, DataLoader) else source)


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Leave the global generators of torch, NumPy and Python as they were."""
    ours, theirs = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(theirs)
