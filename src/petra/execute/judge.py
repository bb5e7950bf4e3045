"""What is asked of a person's own data and metric, inside a worker: inputs and targets written,
predictions judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from petra.core.errors import PetraError
from petra.core.measurement import LARGEST, Measurement
from petra.core.notes import StepBegan
from petra.execute.build import BuildPayload, Note
from petra.measure.client import write_split
from petra.runtimes.verify import compare
from petra.tasks.base import Task


class ScoreError(PetraError):
    """A task's `score` returned what cannot be compared with other candidates' scores."""


@dataclass(frozen=True)
class Judged:
    """The task's metric of one artifact, and how far it is from the PyTorch model ({} if that was
    not asked).
    """

    quality: Measurement
    parity: Mapping[str, float]


def write_data(payload: BuildPayload, note: Note, name: str, place: Path) -> None:
    """Write the inputs of the split called `name` to ``<place>/<name>/`` and its targets beside
    that directory.
    """
    targets = write_split(dict(payload.task.splits())[name], place / name)
    np.save(targets_file(place, name), targets, allow_pickle=False)


def targets_file(place: Path, name: str) -> Path:
    """Where `write_data` puts the targets."""
    return place / f"{name}.targets.npy"


def judge(
    payload: BuildPayload,
    note: Note,
    predictions: Path,
    targets: Path,
    reference: Path | None,
    quantized: bool,
    step: int,
) -> Judged:
    """Hold `predictions` against `targets`, and against the PyTorch model's own in `reference` if
    there is one.

    Notes are `StepBegan` of "compare" and "score". Raises ParityError, ScoreError, and what the
    task's `score` raises.
    """
    predicted = np.load(predictions, allow_pickle=False)
    wanted = np.load(targets, allow_pickle=False)

    def mean(values: np.ndarray) -> float:
        """Of some of the items: it need not be defined for them."""
        try:
            return measured(payload.task, values, wanted[: len(values)]).mean
        except BaseException:
            note(StepBegan(step, "score"))
            raise

    parity: dict[str, float] = {}
    if reference is not None:
        note(StepBegan(step, "compare"))
        own = np.load(reference, allow_pickle=False)
        found = compare(predicted[: len(own)], own, quantized=quantized, score=mean)
        parity = {name: float(value) for name, value in found.items() if math.isfinite(value)}
    note(StepBegan(step, "score"))
    return Judged(checked_score(payload.task, predicted, wanted), parity)


def measured(task: Task, predictions: np.ndarray, targets: np.ndarray) -> Measurement:
    """What the task's `score` makes of copies, which it may spoil, in plain numbers. Raises
    ScoreError for no numbers, and what `score` raises.
    """
    name = f"{type(task).__name__}.score"
    found: object = task.score(
        torch.from_numpy(predictions.copy()).float(), torch.from_numpy(targets.copy())
    )
    if not isinstance(found, Measurement):
        raise ScoreError(
            f"{name} returned {type(found).__name__}",
            hint="it must return a petra.Measurement(mean, stderr, n)",
        )
    try:
        return Measurement(float(found.mean), float(found.stderr), int(found.n), str(task.metric))
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ScoreError(
            f"{name} returned no numbers: {error}", hint="mean, stderr and n are numbers"
        ) from error


def checked_score(task: Task, predictions: np.ndarray, targets: np.ndarray) -> Measurement:
    """The task's metric as finite numbers. Raises ScoreError, and what `score` raises."""
    name, found = f"{type(task).__name__}.score", measured(task, predictions, targets)
    if not abs(found.mean) <= LARGEST:  # nor is NaN
        raise ScoreError(
            f"{name} returned {found.mean} for {task.metric}",
            hint=(
                "give models that cannot be judged the worst value, at most 1e100, where one that"
                " bad may be kept"
            ),
        )
    if not (0 <= found.stderr <= LARGEST and found.n >= 1):
        raise ScoreError(
            f"{name} returned a standard error of {found.stderr} over {found.n} items",
            hint="the standard error is at least 0 (0 where it is not known), and n at least 1",
        )
    return found
