"""ETTh1 (Zhou et al. 2021), 96 hours ahead, with a patch transformer trained on first use.

Hourly load and oil temperature of a transformer station, seven series. The usual split by time:
the first 12 months of 30 days train, the next 4 validate, the next 4 test; a window's context may
reach back into the months before. All is brought to mean 0 and deviation 1 of the training months
beforehand, since that is the scale on which errors are published. Of the windows, which begin every
hour, training takes every second and validation every fourth: others are nearly the same. The test
split has all 2,785.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from petra.core.errors import DataError
from petra.data import numbers, read_csv, windows
from petra.data.frames import placer
from petra.networks.patch_transformer import PatchTransformer
from petra.tasks.base import Task
from petra.tasks.forecasting import forecasting
from petra.training.config import TrainConfig
from petra.workloads.baseline import Reference, trained
from petra.workloads.places import data_file

FILE = "forecasting/ETTh1.csv.gz"
COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
MONTH = 30 * 24  # hours
BORDERS = (12 * MONTH, 16 * MONTH, 20 * MONTH)
STRIDES = (2, 4, 1)  # of training, validation and test windows
HORIZON = 96
DAY = 24
TRAINING = TrainConfig(10, 1e-3, optimizer="adamw", batch_size=64, weight_decay=1e-4)


def read_etth1(path: Path) -> np.ndarray:
    """The seven series, float32 (hours, 7). Raises DataError for another file, and for gaps."""
    frame = read_csv(path)
    series = numbers(frame, COLUMNS)
    if len(series) < BORDERS[-1]:
        raise DataError(f"{path}: {len(series)} rows", hint=f"at least {BORDERS[-1]}, 20 months")
    if np.isnan(series).any():
        row, column = map(int, np.argwhere(np.isnan(series))[0])
        raise DataError(
            f"{placer(frame, COLUMNS[column])(row)}: no value",
            hint="the published file has no gaps",
        )
    return series


def etth1_task(*, data: str | None = None, context: int = 336) -> Task:
    """Contexts float32 (n, 7, context) and what follows (n, 7, 96), in training deviations."""
    raw = read_etth1(data_file(FILE, data))
    months = raw[: BORDERS[0]]
    series = (raw - months.mean(0)) / months.std(0)
    parts = windows(series, context=context, horizon=HORIZON, stride=STRIDES, borders=BORDERS)
    return forecasting(
        *parts,
        season=DAY,
        metric="rmse",
        metrics=["mae"],
        preprocessing="each series less its mean, over its deviation, of the training months",
        meaning="the next 96 hours of the seven series, in these deviations",
    )


def etth1(
    *, data: str | None = None, context: int = 336, seed: int = 0, cache: str | None = None
) -> tuple[nn.Module, Task]:
    """The next 96 hours of seven series from the last `context`, by a patch transformer.

    Trained on first use, some minutes, then kept in `cache` (default: see
    `petra.workloads.places.cache_folder`). `data` is the path of the CSV file, gzipped or not.
    """
    task = etth1_task(data=data, context=context)
    reference = Reference(
        "etth1-patch_transformer",
        lambda: PatchTransformer(len(COLUMNS), context, HORIZON),
        task,
        TRAINING,
        seed=seed,
    )
    return trained(reference, cache=cache), task
