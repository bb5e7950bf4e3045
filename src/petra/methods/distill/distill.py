"""Knowledge distillation from the untouched model: on its outputs, and on those of its blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter
from petra.methods.distill.features import Tap, matching_blocks, relative_distance, tapped
from petra.methods.training import BATCH_SIZE, EPOCHS, LOSS, LR, OPTIMIZER, SCHEDULE, WEIGHT_DECAY, run_fit
from petra.space.domains import Choice, Integer, Real
from petra.space.effects import FLOAT_WEIGHTS, TRAINABLE, Effects
from petra.tasks.base import Task
from petra.tasks.inputs import Inputs, call, map_inputs, prediction
from petra.training.loop import LossFunction, TrainConfig


def mixed_loss(hard: Tensor, soft: Tensor, alpha: float) -> Tensor:
    """(1 - alpha) * hard + alpha * soft (Hinton et al. 2015, section 2)."""
    return (1 - alpha) * hard + alpha * soft


@dataclass(frozen=True)
class Distill(Stage):
    """Train all weights to reproduce the outputs of the untouched model, mixed with the task's own loss.

    Optionally the outputs of blocks that kept their name and shape are matched too (Romero et al. 2015).

    For classification the soft loss is T^2 KL between softened distributions (Hinton et al. 2015); for regression the
    squared distance to the teacher's prediction. The teacher sees the same augmented batch as the student.

    When it helps: recovering a cut model, most of all when the teacher has already learnt the training data by heart,
    so that labels carry little; with `features` where training data is scarce, because every block then has a target
    of its own. When it does not: with a teacher worse than the labels. Costs: tune's cost plus one teacher forward pass
    per step.
    """

    name: ClassVar[str] = "distill"
    effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS, TRAINABLE])

    epochs: int = parameter(3, Integer(1, 8, log=True), "passes over the training split", limits=EPOCHS)
    temperature: float = parameter(4.0, Real(1.0, 8.0), "softening of both distributions", limits=Real(0.1, 100.0))
    alpha: float = parameter(0.9, Real(0.3, 1.0), "weight of the soft loss", limits=Real(0.0, 1.0))
    optimizer: str = parameter("sgd", OPTIMIZER, "optimizer", scope="optimizer")
    lr: float = parameter(0.02, Real(1e-4, 0.1, log=True), "peak learning rate", limits=LR)
    schedule: str = parameter("cosine", SCHEDULE, "learning-rate schedule after the warm-up")
    batch_size: int = parameter(128, Choice((64, 128)), "items per step", limits=BATCH_SIZE)
    weight_decay: float = parameter(5e-4, Real(1e-6, 1e-2, log=True), "decay of weight matrices", limits=WEIGHT_DECAY)
    loss: str = parameter("default", LOSS, "the task's loss, the hard part", scope="loss")

    features: float = parameter(
        0.0,
        Choice((0.0, 0.3, 1.0, 3.0)),
        "weight of matching the teacher's blocks, 0: logits only",
        limits=Real(0.0, 1e3),
    )

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        teacher = context.teacher.to(context.device).eval()
        example = map_inputs(context.task.example(2), lambda t: t.to(context.device))
        blocks = matching_blocks(model.to(context.device), teacher, example) if self.features else ()
        if self.features and not blocks:
            raise StageRefused(
                "no block of the model has the name and output shape of one of the teacher's",
                hint="set features to 0 to distill from the logits alone",
            )
        config = TrainConfig(
            epochs=self.epochs,
            lr=self.lr,
            optimizer=self.optimizer,
            schedule=self.schedule,
            batch_size=self.batch_size,
            weight_decay=self.weight_decay,
            loss=self.loss,
        )
        with tapped(model, teacher, blocks) as taps:
            model, trace = run_fit(self.name, model, config, context, loss_fn=self._loss(context.task, teacher, *taps))
        return model, replace(trace, details={**trace.details, "blocks_matched": list(blocks)})

    def _loss(self, task: Task, teacher: nn.Module, own: Tap, theirs: Tap) -> LossFunction:
        def loss(student: Tensor, inputs: Inputs, target: Tensor) -> Tensor:
            with torch.no_grad():
                reference = prediction(call(teacher, inputs)).float()
            soft = task.distillation(student, reference, temperature=self.temperature)
            total = mixed_loss(task.loss(self.loss, student, target), soft, self.alpha)
            if own.paths:
                total = total + self.features * relative_distance(own.outputs(), theirs.outputs())
            return total

        return loss
