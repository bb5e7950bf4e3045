"""Regressions that rounding can hurt: one made up, with tails, and real ones; each also as a task
that petra does not take special care of.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import petra
from petra.core.pipeline import StageSpec
from petra.methods.base import Context
from petra.methods.table import STAGES
from petra.model.copies.copying import copy_model
from petra.tasks.regression import Regression
from petra.training.loop import TrainConfig, fit


@dataclass(frozen=True)
class Unguarded(Regression):
    """A regression that stages treat like a classification."""

    @property
    def judged_by_error(self) -> bool:
        return False


def unguarded(task: Regression) -> Unguarded:
    return Unguarded(task.train, task.val, task.test, unit=task.unit)


def heavy_tails(n: int = 3000, *, noise: float = 0.05) -> tuple[nn.Module, Regression]:
    """A perceptron and targets that are its own outputs but for some noise, which is its error.
    Inputs are of Student's t distribution with 3 degrees of freedom: one in a thousand is beyond
    10.
    """
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1)
    ).eval()
    x = torch.distributions.StudentT(3.0).sample((n, 8))
    with torch.no_grad():
        exact = model(x)
    y = exact + noise * exact.std() * torch.randn(n, 1)
    parts = [(x[i::3], y[i::3]) for i in range(3)]
    return model, petra.regression(*parts)


def perceptron(features: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(),
        nn.Linear(32, 1),
    )  # fmt: skip


class Series(nn.Module):
    """A small convolutional network over (n, channels, length)."""

    def __init__(self, channels: int, width: int = 16) -> None:
        super().__init__()
        self.a = nn.Conv1d(channels, width, 7, stride=2, padding=3)
        self.b = nn.Conv1d(width, width, 5, stride=2, padding=2)
        self.c = nn.Conv1d(width, width, 3, padding=1)
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.b(torch.relu(self.a(x))))
        return self.head(torch.relu(self.c(x)).mean(-1))


def tser(root: Path, name: str, *, epochs: int) -> tuple[nn.Module, Regression]:
    """A network trained on one of the sets of time-series regression for a few seconds, its inputs
    standardised; a quarter of the training items are for validation.
    """
    with np.load(root / "tser" / f"{name}.npz", allow_pickle=False) as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    x, y = arrays["X_train"], arrays["y_train"]
    torch.manual_seed(0)
    spectra = name == "Tecator"  # its places mean something
    mean, std = (x.mean(0), x.std(0)) if spectra else (x.mean(), x.std())
    network = perceptron(x[0].numel()) if spectra else Series(x.shape[1])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    held, train = order[: len(x) // 4], order[len(x) // 4 :]
    scaled = (x - mean) / std
    test = ((arrays["X_test"] - mean) / std, arrays["y_test"])
    task = petra.regression((scaled[train], y[train]), (scaled[held], y[held]), test)
    model = petra.Rescaled.fit(network, y[train])
    config = TrainConfig(epochs=epochs, lr=2e-3, optimizer="adamw", batch_size=32)
    fit(model, task, config, seed=0)
    return model.eval(), task


def after(model: nn.Module, task: Regression, *stages: StageSpec) -> nn.Module:
    """What stages, at the defaults that the task has, make of a copy of the model."""
    result = copy_model(model)
    for spec in stages:
        stage = STAGES.get(spec.kind).from_spec(spec, task)
        result, _ = stage.apply(result, Context(task=task, teacher=model, seed=0))
    return result


def rmse(model: nn.Module, task: Regression) -> float:
    """On the test split."""
    inputs, targets = next(iter(task.test.batches(10**6)))
    with torch.no_grad():
        return task.quality_of({"output": model(inputs)}, targets)
