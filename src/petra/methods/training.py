"""What stages that train have in common: their parameters, the loss they add to, and the call of
the loop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.pipeline import Value
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter
from petra.model.channels.weights import channel_weights
from petra.model.trainability import changing, frozen_layers, trainable
from petra.space.declare import has, slots, where
from petra.space.domains import Choice, Integer, Real, Text
from petra.space.space import Slot
from petra.tasks.base import Augment, Task
from petra.tasks.inputs import Outputs, map_inputs, named
from petra.training.loop import LossFunction, TrainConfig, fit, steps_per_epoch
from petra.training.mixup import Mixup
from petra.training.penalties import (
    OVER_CHANNELS,
    PENALTIES,
    make_channel_penalty,
    make_penalty,
    penalised_layers,
)
from petra.training.untrained import untrained

EPOCHS = Integer(1, 1000)
LR = Real(1e-6, 10.0, log=True)
OPTIMIZER = Choice(("sgd", "adamw"))
SCHEDULE = Choice(("cosine", "one_cycle"))
BATCH_SIZE = Integer(1, 65536)
WEIGHT_DECAY = Real(0.0, 1.0)
LOSS = Text("default", "default or the name of one of the task's losses")
PENALTY = Choice(("none", *PENALTIES), usual="none")

FROZEN = "frozen by an earlier stage"

HardLoss = Callable[[Outputs, Tensor], Tensor]
"""outputs, target -> mean loss of the task, with its parameters and mixed as the stage's say."""


def run_fit(
    stage: str,
    model: nn.Module,
    config: TrainConfig,
    context: Context,
    *,
    loss_fn: LossFunction | None = None,
    penalty: Callable[[], Tensor] | None = None,
    augment: Augment | None = None,
) -> tuple[nn.Module, StageTrace]:
    """Train all weights that no stage has frozen, and report which layers changed and how the
    validation score moved.

    Raises StageRefused when there are none, or when none gets a gradient.
    """
    if not any(p.is_floating_point() for p in model.parameters()):
        raise StageRefused("the model has no weights to train")
    model.to(context.device)
    kept_away = untrained(
        model, map_inputs(context.task.example(2), lambda t: t.to(context.device))
    )
    before = {name: t.detach().clone() for name, t in changing(model).items()}
    result = fit(
        model,
        context.task,
        config,
        seed=context.seed_for(stage),
        device=context.device,
        loss_fn=loss_fn,
        penalty=penalty,
        augment=augment,
        progress=context.progress,
        effort=context.effort,
    )
    after = changing(model)
    changed = {
        name.rpartition(".")[0]
        for name, t in before.items()
        if not torch.equal(t, after[name].to(t.device))
    }
    touched = tuple(path for path, _ in model.named_modules() if path in changed)
    kept_away |= dict.fromkeys(frozen_layers(model), FROZEN)
    skipped = {path: reason for path, reason in kept_away.items() if path not in changed}
    return model, StageTrace(stage, touched=touched, skipped=skipped, details=result.as_details())


@dataclass(frozen=True)
class TrainingStage(Stage):
    """Base of the stages that are training and nothing else."""

    epochs: int = parameter(
        3, Integer(1, 8, log=True), "passes over the training split", limits=EPOCHS
    )
    optimizer: str = parameter("sgd", OPTIMIZER, "optimizer", scope="optimizer")
    lr: float = parameter(0.01, Real(1e-4, 0.1, log=True), "peak learning rate", limits=LR)
    schedule: str = parameter("cosine", SCHEDULE, "learning-rate schedule after the warm-up")
    batch_size: int = parameter(128, Choice((64, 128)), "items per step", limits=BATCH_SIZE)
    weight_decay: float = parameter(
        5e-4, Real(1e-6, 1e-2, log=True), "decay of weight matrices", limits=WEIGHT_DECAY
    )
    loss: str = parameter("default", LOSS, "the task's loss", scope="loss")
    penalty: str = parameter(
        "none",
        where(has("batch norm"), PENALTY, "bn_l1"),
        "what is added to the loss to shape the weights, summed over layers or groups of coupled"
        " ones",
        limits=PENALTY,
    )
    penalty_weight: float = parameter(
        1e-3,
        Real(1e-5, 1.0, log=True),
        "factor of the penalty",
        limits=Real(1e-9, 1e4),
        when={"penalty": PENALTIES},
    )
    mixup: float = parameter(
        0.0,
        Choice((0.0, 0.2, 1.0), usual=0.0),
        "alpha of the Beta distribution that pairs of items are mixed by, 0: no mixing",
        limits=Real(0.0, 100.0),
    )
    brought: Mapping[str, Value] = slots(Slot("loss"))

    def config(self) -> TrainConfig:
        """The parameters that the loop knows under the same name, and those of the loss."""
        known = {f.name for f in dataclasses.fields(TrainConfig)}
        values: dict[str, Any] = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name in known
        }
        return TrainConfig(**values, loss_values=self.brought)

    @property
    def structure_from_weights(self) -> bool:
        return False

    def training_epochs(self) -> int:
        return self.epochs

    def untrained(self) -> Stage | None:
        """Nothing is left."""
        return None

    @classmethod
    def ignored(cls, task: Task) -> frozenset[str]:
        """Only real numbers can be mixed."""
        mixable = all(tensor.is_floating_point() for tensor in named(task.example()).values())
        return frozenset() if mixable else frozenset({"mixup"})

    def train(
        self, model: nn.Module, context: Context, loss: Callable[[HardLoss], LossFunction]
    ) -> tuple[nn.Module, StageTrace]:
        """Train all weights that are not frozen, on what `loss` makes of the task's own loss, plus
        the penalty.

        Raises StageRefused when there is nothing to train, to penalise or to mix.
        """
        config = self.config()
        own = config.loss_of(context.task)
        mixup = _mixup(self.mixup, context) if self.mixup else None

        def hard(outputs: Outputs, target: Tensor) -> Tensor:
            def against(y: Tensor) -> Tensor:
                return own(outputs, y)

            return mixup.loss(against, target) if mixup else against(target)

        model.to(context.device)
        penalty, layers = self._penalty(model, context)
        loss_fn = loss(hard)
        model, trace = run_fit(
            self.name, model, config, context, loss_fn=loss_fn, penalty=penalty, augment=mixup
        )
        details = {"penalised": layers} if layers else {}
        return model, replace(trace, details={**trace.details, **details})

    def _penalty(
        self, model: nn.Module, context: Context
    ) -> tuple[Callable[[], Tensor] | None, list[str]]:
        """What is added to the loss, and the layers that it acts on: for penalties that prepare
        channels for being cut, those that would narrow.
        """
        if self.penalty == "none":
            return None, []
        if self.penalty in OVER_CHANNELS:
            example = map_inputs(context.task.example(2), lambda t: t.to(context.device))
            generator = torch.Generator().manual_seed(context.seed_for("channels"))
            groups = [
                group
                for group in channel_weights(model, example, generator=generator)
                if any(trainable(model.get_submodule(path)) for path in group.layers)
            ]
            self._require(groups, "layer before the output with channels that can be cut")
            steps = self.epochs * steps_per_epoch(context.task.train, self.batch_size)
            penalty = make_channel_penalty(
                self.penalty, groups, weight=self.penalty_weight, steps=steps
            )
            return penalty, [path for group in groups for path in group.layers]
        layers = penalised_layers(self.penalty, model)
        norms = self.penalty == "bn_l1"
        self._require(
            layers, "batch normalisation with gains" if norms else "linear or convolutional layer"
        )
        return make_penalty(self.penalty, list(layers.values()), weight=self.penalty_weight), list(
            layers
        )

    def _require(self, found: Collection[object], wanted: str) -> None:
        if not found:
            raise StageRefused(
                f"the penalty {self.penalty} finds no {wanted} to act on",
                hint="set penalty to none",
            )


def _mixup(alpha: float, context: Context) -> Mixup:
    for name, tensor in named(context.task.example(2)).items():
        if not tensor.is_floating_point():
            raise StageRefused(
                f"mixup cannot mix the input {name!r}, which is {tensor.dtype}",
                hint="set mixup to 0: only floating-point inputs can be mixed",
            )
    return Mixup(alpha, seed=context.seed_for("mixup"))
