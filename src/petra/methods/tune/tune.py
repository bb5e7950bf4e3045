"""Fine-tuning of all weights with the task's own loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter
from petra.methods.training import BATCH_SIZE, EPOCHS, LOSS, LR, OPTIMIZER, SCHEDULE, WEIGHT_DECAY, run_fit
from petra.space.domains import Choice, Integer, Real
from petra.space.effects import FLOAT_WEIGHTS, TRAINABLE, Effects
from petra.training.loop import TrainConfig


@dataclass(frozen=True)
class Tune(Stage):
    """Train all weights on the task's loss and keep the weights of the best epoch on the validation split.

    SGD with Nesterov momentum or AdamW, warm-up then cosine or one-cycle decay, gradient clipping; bf16 autocast and
    channels-last where the hardware gains from them.

    When it helps: after every stage that damages weights (pruning, decomposition). When it does not: on a model that
    was trained to zero loss on the very same data; distill instead. Costs: epochs x (forward + backward) over the
    training split.
    """

    name: ClassVar[str] = "tune"
    effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS, TRAINABLE])

    epochs: int = parameter(3, Integer(1, 8, log=True), "passes over the training split", limits=EPOCHS)
    optimizer: str = parameter("sgd", OPTIMIZER, "optimizer", scope="optimizer")
    lr: float = parameter(0.01, Real(1e-4, 0.1, log=True), "peak learning rate", limits=LR)
    schedule: str = parameter("cosine", SCHEDULE, "learning-rate schedule after the warm-up")
    batch_size: int = parameter(128, Choice((64, 128)), "items per step", limits=BATCH_SIZE)
    weight_decay: float = parameter(5e-4, Real(1e-6, 1e-2, log=True), "decay of weight matrices", limits=WEIGHT_DECAY)
    loss: str = parameter("default", LOSS, "the task's loss", scope="loss")
    label_smoothing: float = parameter(0.0, Real(0.0, 0.15), "share of a label spread over all", limits=Real(0.0, 0.9))

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        config = TrainConfig(
            epochs=self.epochs,
            lr=self.lr,
            optimizer=self.optimizer,
            schedule=self.schedule,
            batch_size=self.batch_size,
            weight_decay=self.weight_decay,
            label_smoothing=self.label_smoothing,
            loss=self.loss,
        )
        return run_fit(self.name, model, config, context)
