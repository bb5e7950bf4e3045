"""MiniLM under a fresh head on GLUE tasks: the problems of the tables of fine-tuning, and what one
pipeline comes to on one of them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from petra.core.pipeline import Pipeline
from petra.core.rng import derive_seed
from petra.core.trial import StageTrace
from petra.execute.apply import apply_pipeline
from petra.methods.base import Context
from petra.methods.table import STAGES
from petra.model.outline import outline_of
from petra.tasks.base import Task
from petra.training.loop import predict
from petra.workloads.glue import glue

WIDTH = 384  # of MiniLM-L6
THREADS = 1
VALIDATION = 500  # items, at most


@dataclass(frozen=True)
class Setting:
    """How much of a task is used, and how long modules, and all weights, are trained on it."""

    items: int | None = 1024
    epochs: int = 10
    lr: float = 1e-3
    full_lr: float = 5e-5

    def args(self, task: str) -> dict[str, Any]:
        """Arguments of `petra.workloads.glue:glue`."""
        sizes = {"train_items": self.items, "val_items": VALIDATION}
        return {"task": task, "epochs": 0, **sizes, **TASKS[task]}

    def training(self) -> dict[str, float]:
        return {"epochs": self.epochs, "lr": self.lr}


# Lengths that nine items in ten fit into.
TASKS: Mapping[str, dict[str, Any]] = {
    "rte": {"length": 96},
    "mrpc": {"length": 64},
    "cola": {"length": 24, "metric": "matthews"},
    "stsb": {"length": 48, "metric": "pearson"},
    "cb": {"length": 128},
    "sst2": {"length": 32},
}


@dataclass(frozen=True)
class Row:
    """One pipeline on one task with one seed: its quality on the validation split and on the test
    split, and trained parameters beside the head as a share of the model's.
    """

    task: str
    name: str
    seed: int
    validation: float
    test: float
    share: float
    seconds: float
    pipeline: list[dict[str, Any]]
    setting: dict[str, Any]

    @property
    def key(self) -> tuple[str, str, int]:
        return self.task, self.name, self.seed


def normalized(pipeline: Pipeline, model: nn.Module, task: Task) -> Pipeline:
    """With all values filled in, as a study has it. Raises ConfigError for what is not legal."""
    outline = outline_of(model)
    cards = {s.kind: STAGES.get(s.kind).card_for(task, outline) for s in pipeline}
    return Pipeline(tuple(cards[s.kind].normalize(s.params, where=s.kind) for s in pipeline))


def evaluated(task_name: str, name: str, pipeline: Pipeline, seed: int, setting: Setting) -> Row:
    """Head, order of items and modules are drawn from `seed`; trained and judged in PyTorch."""
    torch.set_num_threads(THREADS)
    model, task = glue(seed=seed, **setting.args(task_name))
    whole = normalized(pipeline, model, task)

    def context(prefix: Pipeline) -> Context:
        return Context(task=task, teacher=model, seed=derive_seed(seed, prefix.key))

    start = time.perf_counter()
    result, traces = apply_pipeline(
        model, whole, context, cache=None, on_stage=lambda i, spec: None
    )
    seconds = time.perf_counter() - start
    scores = [task.score(*predict(result, split)).mean for split in (task.val, task.test)]
    return Row(
        task=task_name,
        name=name,
        seed=seed,
        validation=scores[0],
        test=scores[1],
        share=share(traces),
        seconds=round(seconds, 1),
        pipeline=pipeline.as_list(),
        setting=asdict(setting),
    )


def share(traces: tuple[StageTrace, ...]) -> float:
    """Trained parameters without the head, as a share of the untouched model's: 1 where a stage
    trained all of it.
    """
    found = 0.0
    for trace in traces:
        counted = trace.details.get("adapt")
        if trace.stage == "tune":
            return 1.0
        if isinstance(counted, Mapping):
            found += float(counted["share"])
    return found


class Rows:
    """Rows in a file of JSON lines, so that a long table goes on where it was cut off."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows = {row.key: row for row in (Row(**json.loads(line)) for line in lines)}

    def make(self, task: str, name: str, pipeline: Pipeline, seed: int, setting: Setting) -> Row:
        """The row, from the file where the same was evaluated in the same setting."""
        known = self.rows.get((task, name, seed))
        same = known and known.setting == asdict(setting) and known.pipeline == pipeline.as_list()
        if known is None or not same:
            print(f"{task}, {name}, seed {seed}", flush=True)
            known = evaluated(task, name, pipeline, seed, setting)
            self.rows[known.key] = known
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(asdict(known)) + "\n")
        return known

    def of(self, task: str, name: str) -> list[Row]:
        found = [r for r in self.rows.values() if (r.task, r.name) == (task, name)]
        return sorted(found, key=lambda r: r.seed)
