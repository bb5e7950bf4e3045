"""What inputs and outputs mean, as far as task and model say it."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from petra.core.meaning import MOST_CLASSES, Meaning
from petra.data.normalise import Normalise, NormaliseNamed
from petra.model.layers.rescaled import Rescaled
from petra.tasks.base import Task
from petra.tasks.classification import Classification


def meaning_of(model: nn.Module, task: Task) -> Meaning:
    """What the maker of the task said, and which of petra's own layers the model has at its
    ends.
    """
    return Meaning(
        preprocessing=" ".join(task.preprocessing.split()),
        inside=tuple(_inside(model)),
        output=" ".join((task.meaning or task.returns()).split()),
        classes=tuple(name[:200] for name in task.class_names()[:MOST_CLASSES]),
        scores=isinstance(task, Classification),
    )


def _inside(model: nn.Module) -> Iterator[str]:
    named: dict[int, str] = {}
    for module in model.modules():
        if isinstance(module, NormaliseNamed):
            pairs = zip(module.normalise, module.names, strict=True)
            named |= {id(inner): name for inner, name in pairs}
        elif isinstance(module, Normalise):
            where = f"{named[id(module)]}: " if id(module) in named else ""
            yield where + module.in_words()
        elif isinstance(module, Rescaled):
            yield module.in_words()
