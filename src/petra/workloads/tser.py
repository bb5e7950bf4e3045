"""Sets of the extrinsic regression archive (Tan et al. 2021) with InceptionTime, trained on first
use.

The archive's test series are the test split; a fifth of its training series, by a fixed draw,
validates. These are few (19 to 94, of BeijingPM25 2,465), so that only differences between models
on the same series mean something; the test series would be fewer still. Channels are brought to
mean 0 and deviation 1 of the training series, and missing values to that mean, inside the model,
which puts its predictions on the targets' scale at its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from petra.core.errors import DataError, did_you_mean
from petra.data import Normalise
from petra.model.layers.rescaled import Rescaled
from petra.networks.inception_time import InceptionTime
from petra.tasks.regression import Regression, regression
from petra.training.config import TrainConfig
from petra.workloads.archives import TSER_FILES
from petra.workloads.baseline import Reference, trained
from petra.workloads.npz_files import read_series
from petra.workloads.places import data_file
from petra.workloads.splits import held_out

SHARE = 1 / 5  # of the training series, for validation
Parts = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class TserSet:
    """How long a network trains on a set: minutes on one core."""

    epochs: int
    batch_size: int = 32

    @property
    def training(self) -> TrainConfig:
        return TrainConfig(
            self.epochs, 2e-3, optimizer="adamw", batch_size=self.batch_size, weight_decay=0.01
        )


SETS: Mapping[str, TserSet] = {
    "AppliancesEnergy": TserSet(80, batch_size=16),
    "BeijingPM25": TserSet(10, batch_size=64),
    "FloodModeling1": TserSet(40),
    "Tecator": TserSet(120, batch_size=16),
    "Covid3Month": TserSet(80, batch_size=16),
}


def tser_parts(name: str, *, data: str | None = None) -> Parts:
    """Series float32 (n, channels, length), missing values NaN, and targets float32 (n,) of the
    three splits.
    """
    if name not in SETS:
        raise DataError(f"unknown TSER set {name!r}", hint=did_you_mean(name, SETS))
    arrays = read_series(data_file(TSER_FILES[name], data))
    x, y = arrays["X_train"], arrays["y_train"]
    stay, aside = held_out(len(y), SHARE)
    return {
        "train": (x[stay], y[stay]),
        "val": (x[aside], y[aside]),
        "test": (arrays["X_test"], arrays["y_test"]),
    }


def tser(
    *,
    name: str = "FloodModeling1",
    data: str | None = None,
    seed: int = 0,
    cache: str | None = None,
) -> tuple[nn.Module, Regression]:
    """A set of the archive by its `name`, and InceptionTime for it.

    Trained on first use, minutes on one core, then kept in `cache` (default: see
    `petra.workloads.places.cache_folder`). `data` is the path of the set's .npz file.
    """
    parts = tser_parts(name, data=data)
    x, y = parts["train"]
    preprocessing = "none: series as the archive has them"
    task = regression(parts["train"], parts["val"], parts["test"], preprocessing=preprocessing)
    reference = Reference(
        f"tser-{name}-inception_time",
        lambda: Rescaled.fit(nn.Sequential(Normalise.fit(x), InceptionTime(x.shape[1], 1)), y),
        task,
        SETS[name].training,
        seed=seed,
    )
    return trained(reference, cache=cache), task
