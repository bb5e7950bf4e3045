"""A task says what "good" means: data splits, losses to train with, metrics to be judged by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from petra.core.errors import ConfigError, did_you_mean
from petra.core.interface import judged_output
from petra.core.meaning import LONGEST
from petra.core.measurement import Measurement
from petra.core.metric import QUALITY, Metric
from petra.core.text import shown
from petra.space.declare import parameters_of
from petra.space.narrow import DEFAULT_LOSS, Brought
from petra.tasks.data import Split
from petra.tasks.inputs import Inputs, Outputs, batch_size, map_inputs
from petra.tasks.losses import Distance, Loss
from petra.tasks.ragged import RaggedItems
from petra.tasks.scorers import Scorer
from petra.tasks.sources import Reader
from petra.tasks.targets import numbers

Augment = Callable[[Inputs, torch.Generator], Inputs]


@dataclass(frozen=True)
class Task(ABC):
    """Data and judgement. `train` is for stages, `val` for the search, `test` is read once for the
    final front.

    `augment`, if given, maps a training batch of inputs and a generator to the inputs trained on.
    Losses are values that stages choose by name; the first is the default. The first scorer is the
    quality that the search optimises; what the others measure is reported.

    Two texts go with every file that leaves a study: `preprocessing` says what raw data went
    through before it became these inputs ("none" where it did not), `meaning` what the model's
    output is, with its unit. They change nothing else.
    """

    train: Split
    val: Split
    test: Split
    augment: Augment | None = None
    preprocessing: str = field(default="", kw_only=True)
    meaning: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        """Whatever stands for a split becomes one, its targets read as this task has them."""
        for name in ("preprocessing", "meaning"):
            text = getattr(self, name)
            if not isinstance(text, str) or len(text) > LONGEST:
                raise ConfigError(
                    f"{name}: got {shown(text)}",
                    hint=f"a sentence or two, at most {LONGEST} characters",
                )
        for name in ("train", "val", "test"):
            split = Split.of(getattr(self, name), name=name)
            object.__setattr__(self, name, split.read_by(self.reader()))

    @abstractmethod
    def losses(self) -> tuple[Loss, ...]:
        """The losses that stages choose from, with their parameters' defaults; the usual first."""

    @abstractmethod
    def distance(self) -> Distance:
        """How far predictions are from the untouched model's."""

    @abstractmethod
    def scorers(self) -> tuple[Scorer, ...]:
        """What is measured, the quality first."""

    @abstractmethod
    def check(self, prediction: Tensor, target: Tensor, *, where: str) -> None:
        """Raise DataError when predictions and targets of a batch do not fit each other (shapes,
        label range).
        """

    def reader(self) -> Reader:
        """How what users give for targets becomes a tensor: `reader(raw, *, where)`, by default any
        numbers.
        """
        return numbers

    @property
    def metric(self) -> str:
        """The name of the quality."""
        return self.scorers()[0].metric.title

    @property
    def maximize(self) -> bool:
        """Whether more of the quality is better."""
        return bool(self.scorers()[0].metric.maximize)

    @property
    def judged_by_error(self) -> bool:
        """Whether the quality is the error of predicted values, as of a regression or a forecast.
        Then every digit of an output counts, where scores of classes need only stay in order: what
        rounds is gentler by default. Taken to be so where less of the quality is better; a task
        that knows says otherwise.
        """
        return not self.maximize

    def metrics(self) -> tuple[Metric, ...]:
        """What the task measures, the quality first."""
        return tuple(scorer.metric for scorer in self.scorers())

    def loss(self, name: str = DEFAULT_LOSS) -> Loss:
        """The loss of that name, "default" for the first. Raises ConfigError for another name."""
        losses = self.losses()
        if name == DEFAULT_LOSS:
            return losses[0]
        found = next((loss for loss in losses if loss.name == name), None)
        if found is None:
            raise ConfigError(
                f"loss: {type(self).__name__} has no loss {name!r}",
                hint=did_you_mean(name, [DEFAULT_LOSS, *(loss.name for loss in losses)]),
            )
        return found

    def returns(self) -> str:
        """What the output is that is judged, in words, where `meaning` does not say it; '' where
        only the task's maker knows.
        """
        return ""

    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of the outputs, () where there are none."""
        return ()

    def brought(self) -> Brought:
        """Losses, distance and their parameters, as stages' cards take them up."""
        losses = {loss.name: parameters_of(loss) for loss in self.losses()}
        return Brought(losses, parameters_of(self.distance()))

    def score(self, outputs: Outputs | Tensor, targets: Tensor) -> Measurement:
        """The quality of the outputs by name, or of the one there is, (n, ...), for all n items of
        a split in their order.
        """
        return self.scorers()[0].measure(_named(outputs), targets, torch.arange(len(targets)))

    def scores(
        self, outputs: Outputs, targets: Tensor, ids: Tensor | None = None
    ) -> Mapping[str, Measurement]:
        """All that the task measures: the quality under "quality", what else under its name."""
        ids = torch.arange(len(targets)) if ids is None else ids
        return {
            scorer.metric.name if i else QUALITY: scorer.measure(outputs, targets, ids)
            for i, scorer in enumerate(self.scorers())
        }

    def quality_of(self, outputs: Outputs, targets: Tensor) -> float:
        """The quality alone, of some items, without its error."""
        return self.scorers()[0].value(outputs, targets, torch.arange(len(targets)))

    def error_of(self, outputs: Outputs, targets: Tensor) -> float:
        """The quality as an error, less of which is better; of one that is to be large, such as a
        coefficient of determination, what it lacks of 1. Scorers are given copies.
        """
        own = {name: t.clone() for name, t in outputs.items()}
        quality = float(self.quality_of(own, targets.clone()))
        return 1 - quality if self.maximize else quality

    def judged(self, outputs: tuple[str, ...]) -> tuple[str, ...]:
        """Names of those of the model's outputs that the scorers look at, the main one first."""
        main = judged_output(outputs)
        if any(scorer.every for scorer in self.scorers()):
            return (main, *(name for name in outputs if name != main))
        return (main,)

    def example(self, n: int = 2) -> Inputs:
        """The first `n` inputs of the validation split, repeated where it has fewer, for tracing
        and export; of items of different length, `n` of the median length.
        """
        if isinstance(self.val.source, RaggedItems):
            return self.val.source.example(n)
        inputs = self.val.head(n)
        items = batch_size(inputs)
        return map_inputs(inputs, lambda t: t[torch.arange(n) % items]) if items < n else inputs

    def splits(self) -> Iterator[tuple[str, Split]]:
        yield from (("train", self.train), ("val", self.val), ("test", self.test))


def _named(outputs: Outputs | Tensor) -> Outputs:
    return {"output": outputs} if isinstance(outputs, Tensor) else outputs
