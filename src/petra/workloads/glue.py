"""GLUE and SuperGLUE sentence tasks with a fine-tuned MiniLM-L6.

Data are gzipped tab-separated files with a header, ``TASK/train.tsv.gz`` and so on, under ``glue``
in the data root. GLUE's official test labels are not public, and what papers report is accuracy on
its development set; so that set is the test split here, and the validation split is a fixed draw
from the training file. Many of SST-2's training items are phrases of one another, which makes it
easier than the development set's whole sentences: good for choosing, not for reporting.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from petra.core.errors import DataError, did_you_mean
from petra.core.rng import generator
from petra.data.tables import read_csv
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.tasks.regression import regression
from petra.workloads.baseline import load_weights
from petra.workloads.minilm import Recipe, fine_tuned, tokenize, untrained
from petra.workloads.places import data_root


@dataclass(frozen=True)
class GlueTask:
    """Where a task's files are, text columns, number of classes (1: a score), the test file."""

    folder: str
    columns: tuple[str, ...]
    classes: int = 2
    test: str = "dev"


TASKS: Mapping[str, GlueTask] = {
    "sst2": GlueTask("SST-2", ("sentence",)),
    "cola": GlueTask("CoLA", ("sentence",)),
    "rte": GlueTask("RTE", ("sentence1", "sentence2")),
    "mrpc": GlueTask("MRPC", ("sentence1", "sentence2"), test="test"),
    "cb": GlueTask("CB", ("premise", "hypothesis"), classes=3),
    "stsb": GlueTask("STS-B", ("sentence1", "sentence2"), classes=1),
}


@dataclass(frozen=True)
class Rows:
    """A file's text columns, each a list of n texts, and its labels as written."""

    texts: list[list[str]]
    labels: list[str]

    def take(self, index: list[int]) -> Rows:
        return Rows(
            [[column[i] for i in index] for column in self.texts], [self.labels[i] for i in index]
        )


def read_rows(path: Path, columns: tuple[str, ...]) -> Rows:
    """Read a gzipped tab-separated file. Raises DataError naming the line that is wrong."""
    if not path.is_file():
        raise DataError(
            f"{path}: no such file", hint="a GLUE task is a folder with train.tsv.gz and dev.tsv.gz"
        )
    frame = read_csv(path, separator="\t", quote=None)
    wanted = (*columns, "label")
    if not set(wanted) <= set(frame.columns):
        raise DataError(
            f"{path}: its columns are {', '.join(frame.columns)}",
            hint=f"wanted: {', '.join(wanted)}",
        )
    return Rows([frame[name].tolist() for name in columns], frame["label"].tolist())


def targets(labels: list[str], classes: int, *, where: str) -> Tensor:
    """Class indices int64 (n,), or scores float32 (n,) where `classes` is 1.

    Raises DataError on other labels.
    """
    try:
        if classes == 1:
            return torch.tensor([float(label) for label in labels])
        found = torch.tensor([int(label) for label in labels])
    except ValueError as error:
        raise DataError(
            f"{where}: a label is not a number: {error}", hint="labels are numbers, classes from 0"
        ) from error
    if len(found) and not (int(found.min()) >= 0 and int(found.max()) < classes):
        raise DataError(
            f"{where}: labels run from {found.min()} to {found.max()}",
            hint=f"allowed: 0..{classes - 1}",
        )
    return found


def glue_task(
    task: str = "sst2",
    *,
    data: str | Path | None = None,
    length: int = 64,
    train_items: int | None = None,
    val_items: int = 2000,
    metric: str = "",
    metrics: Sequence[str] = (),
) -> Task:
    """The task on the files in `data` (default: its folder under ``glue`` in the data root),
    tokenized for MiniLM.

    `val_items` training items (at most a fifth of them) are set aside by a fixed draw,
    `train_items` of the others kept, in an order that is drawn too, None for all. `metric` is the
    quality, by default accuracy, of scores RMSE; `metrics` are measured besides. Inputs are a dict
    of int64 (n, length) tensors.
    """
    known, folder = _known(task), _folder(task, data)
    train = read_rows(folder / "train.tsv.gz", known.columns)
    test = read_rows(folder / f"{known.test}.tsv.gz", known.columns)
    order = generator(0, "glue", task, "validation").permutation(len(train.labels)).tolist()
    held_out = min(val_items, len(order) // 5)
    stop = None if train_items is None else held_out + train_items
    rows = {
        "train": train.take(order[held_out:stop]),
        "val": train.take(order[:held_out]),
        "test": test,
    }
    parts = [
        (
            tokenize(r.texts, length=length),
            targets(r.labels, known.classes, where=f"{folder}, {split}"),
        )
        for split, r in rows.items()
    ]
    quality = metric or ("rmse" if known.classes == 1 else "accuracy")
    made = regression if known.classes == 1 else classification
    return made(
        *parts,
        metric=quality,
        metrics=metrics,
        preprocessing=f"the tokenizer of all-MiniLM-L6-v2, cut and padded to {length} tokens",
    )


def glue(
    task: str = "sst2",
    *,
    data: str | None = None,
    weights: str | None = None,
    length: int = 64,
    train_items: int | None = 16384,
    val_items: int = 2000,
    metric: str = "",
    metrics: Sequence[str] = (),
    epochs: int = 1,
    lr: float = 3e-5,
    seed: int = 0,
    cache: str | None = None,
) -> tuple[nn.Module, Task]:
    """A fine-tuned MiniLM and its task; of no `epochs`, the pretrained one under a fresh head, for
    pipelines that begin with its adaptation.

    Trained on first use (SST-2 with these settings: minutes; on all of its sentences a quarter of
    an hour), then kept in `cache` (default: see `petra.workloads.places.cache_folder`); `weights`,
    a state dict in safetensors form, are loaded instead. The other arguments are those of
    `glue_task`.
    """
    outputs = _known(task).classes
    made = glue_task(
        task, data=data, length=length, train_items=train_items, val_items=val_items,
        metric=metric, metrics=metrics,
    )  # fmt: skip
    if weights is not None:
        return load_weights(untrained(outputs), Path(weights)), made
    if not epochs:
        return untrained(outputs, seed=seed), made
    content = hashlib.sha256((_folder(task, data) / "train.tsv.gz").read_bytes()).hexdigest()[:12]
    recipe = Recipe(task, content, length, train_items, val_items, epochs, lr, seed=seed)
    return fine_tuned(made, recipe, outputs=outputs, cache=Path(cache) if cache else None), made


sst2 = partial(glue, "sst2")


def _known(task: str) -> GlueTask:
    if task not in TASKS:
        raise DataError(f"unknown GLUE task {task!r}", hint=did_you_mean(task, TASKS))
    return TASKS[task]


def _folder(task: str, data: str | Path | None) -> Path:
    folder = f"glue/{_known(task).folder}"
    return Path(data) if data is not None else data_root(folder) / folder
