"""Targets as people write them, made what a task judges with: class indices, or real values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from petra.core.errors import ConfigError, DataError, did_you_mean
from petra.tasks.tensors import as_tensor, is_text

MOST_CLASSES = 2**31


def numbers(raw: object, *, where: str) -> Tensor:
    """Targets of any task, as they come."""
    if is_text(raw):
        raise DataError(f"{where}: targets are str", hint="targets must be numbers")
    return as_tensor(raw, what=f"{where}: targets")


def real_values(raw: object, *, where: str) -> Tensor:
    """Targets of a regression: (n, ...) float32, from integers too."""
    return numbers(raw, where=where).float()


@dataclass(frozen=True)
class ClassIndices:
    """Targets of a classification: (n,) int64, from integers, whole real numbers, booleans, one-hot
    rows, a trailing axis of one and, where `classes` names the model's outputs in their order,
    text."""

    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if any(not isinstance(name, str) for name in self.classes) or len(set(self.classes)) < len(
            self.classes
        ):
            raise ConfigError(
                f"classes: {', '.join(map(repr, self.classes))[:80]} are not the names of different"
                " classes",
                hint=(
                    "one text per output of the model, in their order; class indices need no names"
                ),
            )

    def __call__(self, raw: object, *, where: str) -> Tensor:
        if is_text(raw):
            return self._indices(np.asarray(raw).astype(str).reshape(-1), where)
        labels = as_tensor(raw, what=f"{where}: targets")
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim > 1:
            return _from_rows(labels, where)
        if labels.is_floating_point():
            whole = labels.round()
            # NaN differs from itself.
            odd = ((whole != labels) | (whole.abs() > MOST_CLASSES)).nonzero()
            if len(odd):
                raise DataError(
                    f"{where}, entry {int(odd[0, 0])}: the target {labels[tuple(odd[0])]:g} is no"
                    " class index",
                    hint="classes are whole numbers from 0; for real targets use petra.regression",
                )
            labels = whole
        return labels.long()

    def _indices(self, words: np.ndarray, where: str) -> Tensor:
        if not self.classes:
            found = sorted(set(words.tolist()))
            shown = ", ".join(map(repr, found[:3])) + (", ..." if len(found) > 3 else "")
            raise DataError(
                f"{where}: labels are text ({shown})",
                hint=(
                    "name the model's outputs in their order: petra.classification(...,"
                    f" classes=[{shown}])"
                ),
            )
        number = {name: i for i, name in enumerate(self.classes)}
        for i, word in enumerate(words.tolist()):
            if word not in number:
                hint = did_you_mean(word, self.classes)
                raise DataError(
                    f"{where}, entry {i}: the label {word!r} is not among the classes", hint=hint
                )
        return torch.tensor([number[word] for word in words.tolist()], dtype=torch.int64)


def _from_rows(labels: Tensor, where: str) -> Tensor:
    """Class indices from rows (n, classes) with a single one."""
    single = ((labels == 0) | (labels == 1)).flatten(1).all(1) & (labels.flatten(1).sum(1) == 1)
    if labels.ndim > 2 or not single.all():
        row = "" if single.all() else f", entry {int((~single).nonzero()[0, 0])}"
        raise DataError(
            f"{where}{row}: targets of shape {tuple(labels.shape)} are neither class indices nor"
            " one-hot rows",
            hint=(
                "one class per item, (n,), e.g. targets.argmax(1) of probabilities; for several per"
                " item write a subclass of petra.Task, or petra.task(..., loss=..., score=...)"
            ),
        )
    return labels.to(torch.int64).argmax(1)
