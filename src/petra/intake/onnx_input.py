"""An ONNX file as the model: read, given the data by its own names, and tried against itself."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from petra.core.errors import DataError
from petra.core.interface import judged_output
from petra.core.target import Target
from petra.intake.behaviour import Probe, distance
from petra.measure.bench_main import Request
from petra.measure.client import run_bench
from petra.measure.stored import load_arrays, write_dense
from petra.model.imported.build import read_model
from petra.model.imported.file import SUFFIX
from petra.model.imported.module import FREE_BATCH, ImportedModel
from petra.runtimes.onnx_given import check_reads, ship, states_items
from petra.runtimes.table import runtime_for
from petra.runtimes.verify import FLOAT_TOLERANCE
from petra.tasks.base import Task
from petra.tasks.data import Batch, Split
from petra.tasks.inputs import Inputs, named


def is_onnx(model: object) -> bool:
    """Whether what is given as a model is the path of an ONNX file."""
    return isinstance(model, str | Path) and str(model).lower().endswith(SUFFIX)


def received(model: Any, task: Any, target: Target) -> tuple[Any, Any]:
    """Model and task as the rest of petra takes them: of an ONNX file, what it was read into, and a
    task whose inputs have its names. Anything else stays as it is.

    Raises OnnxRefused for a file that petra does not read, ConfigError or ExportError for a
    `target` that cannot take it.
    """
    if is_onnx(model):
        model = read_model(model)
    if not isinstance(model, ImportedModel):
        return model, task
    check_reads(runtime_for(target))
    return model, with_names(task, tuple(port.public for port in model.inputs))


# -- names -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NamedSplit(Split):
    """A split whose inputs are given names, unless they have some."""

    names: tuple[str, ...] = ()

    def batches(
        self, size: int, *, seed: int | None = None, drop_last: bool = False
    ) -> Iterator[Batch]:
        for inputs, target in super().batches(size, seed=seed, drop_last=drop_last):
            yield by_name(inputs, self.names), target


def by_name(inputs: Inputs, names: tuple[str, ...]) -> Inputs:
    """Tensors in the order of `names`, as a dict. Raises DataError unless there are as many."""
    if isinstance(inputs, dict):
        return inputs
    given = (inputs,) if isinstance(inputs, Tensor) else inputs
    if len(given) != len(names):
        raise DataError(
            f"the ONNX file takes {len(names)} inputs ({', '.join(names)}), the data have"
            f" {len(given)}",
            hint="give a tuple in this order, or a dict with these names",
        )
    return dict(zip(names, given, strict=True))


def with_names(task: Any, names: tuple[str, ...]) -> Any:
    """A copy of a task whose splits give dicts. Augmentation, which expects what the splits gave,
    is left out: what came as a file is not trained. What is no task stays as it is.
    """
    if not isinstance(task, Task) or not all(isinstance(s, Split) for _, s in task.splits()):
        return task
    found = copy.copy(task)
    for name, split in task.splits():
        if not isinstance(split, NamedSplit):
            parts = {f.name: getattr(split, f.name) for f in fields(Split)}
            object.__setattr__(found, name, NamedSplit(**parts, names=names))
    object.__setattr__(found, "augment", None)
    return found


# -- what it computes ------------------------------------------------------------------------------


def check_same(model: ImportedModel, probe: Probe, predictions: Tensor) -> tuple[str, ...]:
    """Hold what the model that was read predicts, (n, ...), against what the file itself does on
    the same items, loaded by ONNX Runtime in a process of its own; remarks.

    Raises DataError where they differ, and ArtifactError or BenchDied where the file does not run.
    Costs a second.
    """
    items = len(predictions)
    columns = {name: t.numpy() for name, t in named(probe.take(items)).items()}
    with tempfile.TemporaryDirectory(prefix="petra-onnx-") as place:
        file, found = Path(place) / f"model{SUFFIX}", Path(place) / "found.npz"
        ship(model, file)
        write_dense(columns, Path(place) / "data")
        target = Target("onnxruntime")
        request = Request(
            target, str(file), str(Path(place) / "data"), predictions=str(found), metrics=()
        )
        run_bench(request)
        outputs = load_arrays(found)
    own = torch.from_numpy(outputs[judged_output(tuple(outputs))]).float()
    apart = distance(predictions, own)
    if apart > FLOAT_TOLERANCE:
        raise DataError(
            f"{model.source.path}: read into PyTorch, it computes something else than in ONNX"
            f" Runtime: predictions differ by {apart:.2%} of their spread",
            hint=f"at most {FLOAT_TOLERANCE:.1%} is allowed. {_causes(model)}",
        )
    return tuple(_remarks(model))


def _causes(model: ImportedModel) -> str:
    stated = states_items(model)
    if stated:
        return f"{stated[0].name!r} states the number of items: {FREE_BATCH}"
    return "an operator means something else than petra takes it for: please report it"


def _remarks(model: ImportedModel) -> Iterator[str]:
    ports = (*model.inputs, *model.outputs)
    renamed = [f"{p.name} to {p.public}" for p in ports if p.name != p.public]
    if renamed:
        yield f"names of the file that are none in Python are changed: {', '.join(renamed[:5])}"
    if states_items(model):
        yield (
            "the file states how many items a call takes; it is measured with any number, which"
            " changes nothing of what it computes"
        )
    yield (
        f"{model.source.name} is quantized and stored in fewer bits, not trained or cut: in an ONNX"
        " file dropout is gone, batch norms are folded, and nothing says what is a weight; for that"
        " petra takes the PyTorch model"
    )
