"""Knowledge distillation from the untouched model, on its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter
from petra.methods.training import BATCH_SIZE, EPOCHS, LOSS, LR, OPTIMIZER, SCHEDULE, WEIGHT_DECAY, run_fit
from petra.space.domains import Choice, Integer, Real
from petra.space.effects import FLOAT_WEIGHTS, TRAINABLE, Effects
from petra.tasks.inputs import Inputs, call, prediction
from petra.training.loop import TrainConfig


def mixed_loss(hard: Tensor, soft: Tensor, alpha: float) -> Tensor:
    """(1 - alpha) * hard + alpha * soft (Hinton et al. 2015, section 2)."""
    return (1 - alpha) * hard + alpha * soft


@dataclass(frozen=True)
class Distill(Stage):
    """Train all weights to reproduce the outputs of the untouched model, mixed with the task's own loss.

    For classification the soft loss is T^2 KL between softened distributions (Hinton et al. 2015); for regression the
    squared distance to the teacher's prediction. The teacher sees the same augmented batch as the student.

    When it helps: recovering a cut model, most of all when the teacher has already learnt the training data by heart,
    so that labels carry little. When it does not: with a teacher worse than the labels. Costs: tune's cost plus one
    teacher forward pass per step.
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

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        task = context.task
        teacher = context.teacher.to(context.device).eval()

        def loss_fn(student: Tensor, inputs: Inputs, target: Tensor) -> Tensor:
            with torch.no_grad():
                reference = prediction(call(teacher, inputs)).float()
            soft = task.distillation(student, reference, temperature=self.temperature)
            return mixed_loss(task.loss(self.loss, student, target), soft, self.alpha)

        config = TrainConfig(
            epochs=self.epochs,
            lr=self.lr,
            optimizer=self.optimizer,
            schedule=self.schedule,
            batch_size=self.batch_size,
            weight_decay=self.weight_decay,
            loss=self.loss,
        )
        return run_fit(self.name, model, config, context, loss_fn=loss_fn)
