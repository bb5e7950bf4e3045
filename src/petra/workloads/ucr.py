"""Sets of the UCR archive (Dau et al. 2019), with InceptionTime or LSTM-FCN trained on first use.

The archive's test series are the test split. A quarter of its training series, by a fixed
stratified draw, validates. GunPoint and ItalyPowerDemand have 50 and 67 training series, too few to
choose by: there a third of the test series validates, and the others are the test split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from petra.core.errors import DataError, did_you_mean
from petra.networks.inception_time import InceptionTime
from petra.networks.lstm_fcn import LSTMFCN
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.training.config import TrainConfig
from petra.workloads.baseline import Reference, trained
from petra.workloads.npz_files import Arrays, read_series
from petra.workloads.places import data_file
from petra.workloads.splits import held_out

SHARE = 1 / 4  # of the training series, for validation
FROM_TEST = 1 / 3  # of the test series, where the training series are too few
EPOCHS = {"inception_time": 1, "lstm_fcn": 4}
"""Times a set's epochs: an LSTM-FCN's take a fifth of the time and teach less (its authors train
for 2,000)."""


@dataclass(frozen=True)
class UcrSet:
    """How long InceptionTime trains on a set, minutes on one core; whether it is too `small` to
    set training series aside.
    """

    epochs: int
    batch_size: int = 32
    small: bool = False

    def training(self, network: str) -> TrainConfig:
        return TrainConfig(
            self.epochs * EPOCHS[network],
            2e-3,
            optimizer="adamw",
            batch_size=self.batch_size,
            weight_decay=0.01,
        )


SETS: Mapping[str, UcrSet] = {
    "GunPoint": UcrSet(150, batch_size=16, small=True),
    "ItalyPowerDemand": UcrSet(80, batch_size=16, small=True),
    "SyntheticControl": UcrSet(60),
    "ECG5000": UcrSet(30),
    "FaceAll": UcrSet(50),
    "Wafer": UcrSet(20),
    "ElectricDevices": UcrSet(8, batch_size=64),
    "Crop": UcrSet(14, batch_size=64),
}
NETWORKS: Mapping[str, type[nn.Module]] = {"inception_time": InceptionTime, "lstm_fcn": LSTMFCN}


def ucr_task(name: str, *, data: str | None = None) -> Task:
    """The set as a task: series float32 (n, 1, length), labels counted from 0 in the order of the
    archive's.
    """
    _known(name)
    arrays = _by_class(read_series(data_file(f"ucr/{name}.npz", data)), name)
    parts = {part: (arrays[f"X_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")}
    source, share = ("test", FROM_TEST) if SETS[name].small else ("train", SHARE)
    x, y = parts[source]
    stay, aside = held_out(len(y), share, labels=y)
    parts["val"], parts[source] = (x[aside], y[aside]), (x[stay], y[stay])
    preprocessing = "none: series as the archive has them"
    return classification(parts["train"], parts["val"], parts["test"], preprocessing=preprocessing)


def ucr(
    *,
    name: str = "ECG5000",
    network: str = "inception_time",
    data: str | None = None,
    seed: int = 0,
    cache: str | None = None,
) -> tuple[nn.Module, Task]:
    """A set of the archive by its `name`, and a `network` for it: inception_time or lstm_fcn.

    Trained on first use, minutes on one core, then kept in `cache` (default: see
    `petra.workloads.places.cache_folder`). `data` is the path of the set's .npz file.
    """
    if network not in NETWORKS:
        raise DataError(f"unknown network {network!r}", hint=did_you_mean(network, NETWORKS))
    task = ucr_task(name, data=data)
    example, labels = task.example(1), task.train.targets()
    assert isinstance(example, torch.Tensor)
    assert labels is not None
    reference = Reference(
        f"ucr-{name}-{network}",
        lambda: _untrained(network, example.shape[-1], int(labels.max()) + 1),
        task,
        SETS[name].training(network),
        seed=seed,
    )
    return trained(reference, cache=cache), task


def _untrained(network: str, length: int, classes: int) -> nn.Module:
    return LSTMFCN(1, length, classes) if network == "lstm_fcn" else InceptionTime(1, classes)


def _known(name: str) -> None:
    if name not in SETS:
        raise DataError(f"unknown UCR set {name!r}", hint=did_you_mean(name, SETS))


def _by_class(arrays: Arrays, name: str) -> Arrays:
    """The arrays with labels as class indices int64, in the order of the raw ones."""
    classes = np.unique(arrays["y_train"])
    for part in ("train", "test"):
        raw = arrays[f"y_{part}"]
        if strange := set(raw.tolist()) - set(classes.tolist()):
            raise DataError(
                f"ucr/{name}, {part}: label {min(strange)}",
                hint=f"labels of the training series are {', '.join(map(str, classes))}",
            )
        arrays[f"y_{part}"] = np.searchsorted(classes, raw).astype(np.int64)
    return arrays
