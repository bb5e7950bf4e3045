"""What is asked of a person's own data and metric, inside a worker: inputs and targets written,
predictions judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from petra.core.errors import PetraError
from petra.core.measurement import LARGEST, Measurement
from petra.core.metric import CHANGE, QUALITY
from petra.core.notes import StepBegan
from petra.execute.build import BuildPayload, Note
from petra.measure.client import write_split
from petra.measure.stored import load_arrays
from petra.runtimes.verify import compare, tolerance
from petra.tasks.base import Task


class ScoreError(PetraError):
    """A task's metric is nothing that can be compared with other candidates'."""


@dataclass(frozen=True)
class Judged:
    """What the task measures of one artifact, the quality under "quality", each with its change
    against another artifact's under "quality_change" where there is one, and how far it is from the
    PyTorch model ({} if that was not asked).
    """

    scores: Mapping[str, Measurement]
    parity: Mapping[str, float]

    def on(self, host: str) -> dict[str, Measurement]:
        """The scores as measured on `host`."""
        return {name: replace(m, host=host) for name, m in self.scores.items()}


def write_data(payload: BuildPayload, note: Note, name: str, place: Path) -> None:
    """Write the inputs of the split called `name` to ``<place>/<name>/`` and its targets beside
    that directory.
    """
    split = dict(payload.task.splits())[name]
    targets = write_split(split, place / name, payload.interface)
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
    opponent: Path | None,
    quantized: bool,
    step: int,
) -> Judged:
    """Hold `predictions` against `targets`, against the PyTorch model's own in `reference` and
    against the untouched model's in `opponent` if there are any.

    Notes are `StepBegan` of "compare" and "score". Raises ParityError, ScoreError, and what the
    task's `score` raises.
    """
    predicted = load_arrays(predictions)
    main = next(iter(predicted))
    wanted = np.load(targets, allow_pickle=False)

    def mean(values: np.ndarray) -> float:
        """Of some of the items: it need not be defined for them."""
        others = {name: array[: len(values)] for name, array in predicted.items()}
        try:
            return quality_of(payload.task, others | {main: values}, wanted[: len(values)])
        except BaseException:
            note(StepBegan(step, "score"))
            raise

    def error(values: np.ndarray) -> float:
        """As `Task.error_of`: of a quality that is to be large, what it lacks of 1."""
        return 1 - mean(values) if payload.task.maximize else mean(values)

    parity: dict[str, float] = {}
    if reference is not None:
        note(StepBegan(step, "compare"))
        for name, own in load_arrays(reference).items():
            found = compare(
                predicted[name][: len(own)],
                own,
                quantized=quantized,
                score=mean if name == main else _unscored,
                error=error if name == main and payload.task.judged_by_error else None,
            )
            if name == main:
                parity = {key: float(x) for key, x in found.items() if math.isfinite(x)}
                parity["tolerance"] = tolerance(quantized)
    note(StepBegan(step, "score"))
    scores = checked_scores(payload.task, predicted, wanted)
    if opponent is not None:
        scores |= changes(payload.task, predicted, load_arrays(opponent), wanted)
    return Judged(scores, parity)


def _unscored(values: np.ndarray) -> float:
    """Of an output that has no metric of its own."""
    return 0.0


def quality_of(task: Task, outputs: Mapping[str, np.ndarray], targets: np.ndarray) -> float:
    """The quality that the task finds for copies, which it may spoil, as a plain number. Raises
    ScoreError for no number, and what the task raises.
    """
    found: object = task.quality_of(*_copies(outputs, targets))
    try:
        return float(found)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ScoreError(
            f"{task.metric}: its value is {type(found).__name__}: {error}",
            hint="a scorer's value is a number",
        ) from error


def checked_scores(
    task: Task,
    outputs: Mapping[str, np.ndarray],
    targets: np.ndarray,
    ids: np.ndarray | None = None,
) -> dict[str, Measurement]:
    """All that the task measures, as finite plain numbers; each scorer is given copies of its own.
    `ids` number the items, by default from 0. Raises ScoreError, and what scorers raise.
    """
    numbers = torch.arange(len(targets)) if ids is None else torch.from_numpy(ids)
    found = {}
    for i, scorer in enumerate(task.scorers()):
        tensors, wanted = _copies(outputs, targets)
        given: object = scorer.measure(tensors, wanted, numbers.clone())
        name = scorer.metric.name if i else QUALITY
        found[name] = _checked(given, type(scorer).__name__, scorer.metric.title)
    return found


def changes(
    task: Task,
    ours: Mapping[str, np.ndarray],
    theirs: Mapping[str, np.ndarray],
    targets: np.ndarray,
) -> dict[str, Measurement]:
    """How much more of all that the task measures `ours` have than `theirs`, paired by item: by
    name of the metric with `CHANGE` behind it. Raises as `checked_scores`.
    """
    found = {}
    for i, scorer in enumerate(task.scorers()):
        mine, wanted = _copies(ours, targets)
        other, _ = _copies(theirs, targets)
        ids = torch.arange(len(wanted))
        given: object = scorer.difference(mine, other, wanted, ids)
        name = scorer.metric.name if i else QUALITY
        title = f"change of {scorer.metric.title}"
        found[name + CHANGE] = _checked(given, type(scorer).__name__, title)
    return found


def difference(
    payload: BuildPayload, note: Note, ours: Path, theirs: Path, targets: Path
) -> Measurement:
    """How much more of the quality the predictions in `ours` have than those in `theirs`."""
    wanted = np.load(targets, allow_pickle=False)
    return changes(payload.task, load_arrays(ours), load_arrays(theirs), wanted)[QUALITY + CHANGE]


def _copies(
    outputs: Mapping[str, np.ndarray], targets: np.ndarray
) -> tuple[dict[str, Tensor], Tensor]:
    tensors = {name: torch.from_numpy(array.copy()) for name, array in outputs.items()}
    real = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
    return real, torch.from_numpy(targets.copy())


def _checked(found: object, scorer: str, title: str) -> Measurement:
    """What a scorer returned as finite plain numbers. Raises ScoreError."""
    if not isinstance(found, Measurement):
        raise ScoreError(
            f"{scorer} returned {type(found).__name__}",
            hint="it must return a petra.Measurement(mean, stderr, n)",
        )
    try:
        plain = Measurement(float(found.mean), float(found.stderr), int(found.n), title)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ScoreError(
            f"{scorer} returned no numbers: {error}", hint="mean, stderr and n are numbers"
        ) from error
    if not abs(plain.mean) <= LARGEST:  # nor is NaN
        raise ScoreError(
            f"{scorer} returned {plain.mean} for {title}",
            hint=(
                "give models that cannot be judged the worst value, at most 1e100, where one that"
                " bad may be kept"
            ),
        )
    if not (0 <= plain.stderr <= LARGEST and plain.n >= 1):
        raise ScoreError(
            f"{scorer} returned a standard error of {plain.stderr} over {plain.n} items",
            hint="the standard error is at least 0 (0 where it is not known), and n at least 1",
        )
    return plain
