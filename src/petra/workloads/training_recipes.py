"""How the networks of `petra.networks` are trained from nothing, on a set of any size.

    recipe = RECIPES["inception_time"]
    fit(model, task, recipe.config(len(task.train)), seed=0)

The papers train for hundreds of epochs and keep the weights that do best on held-out data; petra
keeps the last ones, so that rates here fall to zero within a budget of steps that two cores can
afford.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from petra.training.config import TrainConfig

LEAST_BATCH, BATCHES = 8, 8
"""Small sets come in at least so many batches, of at least so many items."""


@dataclass(frozen=True)
class TrainingRecipe:
    """At least `steps` steps and `epochs` passes, in batches of at most `batch_size` items; the
    rest as for `TrainConfig`.
    """

    lr: float
    steps: int
    epochs: int
    batch_size: int = 64
    optimizer: str = "adamw"
    schedule: str = "one_cycle"
    weight_decay: float = 1e-2

    def config(self, items: int) -> TrainConfig:
        """The settings for `items` items of training data."""
        batch_size = min(self.batch_size, max(LEAST_BATCH, items // BATCHES))
        per_epoch = max(1, -(-items // batch_size))
        return TrainConfig(
            epochs=max(self.epochs, -(-self.steps // per_epoch)),
            lr=self.lr,
            optimizer=self.optimizer,
            schedule=self.schedule,
            batch_size=batch_size,
            weight_decay=self.weight_decay,
        )


RECIPES: Mapping[str, TrainingRecipe] = {
    # He et al. 2016: SGD from 0.1, 64,000 steps of 128.
    "cifar_resnet": TrainingRecipe(
        lr=0.1, steps=64_000, epochs=1, batch_size=128, optimizer="sgd", schedule="cosine",
        weight_decay=1e-4,
    ),
    # Ismail Fawaz et al. 2020: Adam at 1e-3, halved on plateaus, 1,500 epochs of batches of 64.
    "inception_time": TrainingRecipe(lr=1e-3, steps=1_500, epochs=20),
    # Karim et al. 2018: Adam from 1e-3 to 1e-4, 2,000 epochs of batches of 128.
    "lstm_fcn": TrainingRecipe(lr=1e-3, steps=2_000, epochs=30),
    # Bai et al. 2018: Adam at 2e-3.
    "tcn": TrainingRecipe(lr=2e-3, steps=2_000, epochs=30),
    # Nie et al. 2023: Adam at 1e-4, 100 epochs of batches of 128.
    "patch_transformer": TrainingRecipe(lr=1e-3, steps=500, epochs=10, batch_size=128),
    # Babaev et al. 2019: Adam at 1e-3.
    "event_gru": TrainingRecipe(lr=2e-3, steps=1_000, epochs=10),
    "event_transformer": TrainingRecipe(lr=1e-3, steps=1_000, epochs=10),
}  # fmt: skip
"""By the name of the network."""
