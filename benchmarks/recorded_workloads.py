"""The recorded workloads: models of seconds a candidate, trained on the spot from fixed seeds."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.training.loop import TrainConfig, fit
from petra.workloads.digits import digits

THREADS = 2  # the weights that training comes to depend on them


class SeriesNet(nn.Module):
    """A residual network on series (n, 1, length): three blocks of 64, 128 and 128 channels with
    kernels of 7, 5 and 3, as the usual baseline of the UCR archive (Wang, Yan & Oates 2017).
    """

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        widths = (1, width, 2 * width, 2 * width)
        pairs = pairwise(widths)
        self.blocks = nn.ModuleList(_Block(i, o, stride=2) for i, o in pairs)
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.classifier(self.pool(x).flatten(1))
        return logits


class _Block(nn.Module):
    """Three convolutions beside a shortcut of one."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            *_conv_bn(inputs, outputs, 7, stride), nn.ReLU(),
            *_conv_bn(outputs, outputs, 5, 1), nn.ReLU(),
            *_conv_bn(outputs, outputs, 3, 1),
        )  # fmt: skip
        self.shortcut = nn.Sequential(*_conv_bn(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.convs(x) + self.shortcut(x))


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return conv, nn.BatchNorm1d(outputs)


def ecg5000() -> tuple[nn.Module, Task]:
    """Heartbeats of 140 samples in 5 classes: the archive's 500 training series, and of its test
    series, shuffled, the first 1,000 to validate on and the next 2,000 as test split.
    """
    place = Path(os.environ.get("PETRA_DATA", "data")) / "ucr" / "ECG5000.npz"
    with np.load(place, allow_pickle=False) as file:
        parts = {name: file[name] for name in file.files}
    names = {label: i for i, label in enumerate(sorted(set(parts["y_train"].tolist())))}

    def split(x: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor]:
        labels = torch.tensor([names[label] for label in y.tolist()])
        return torch.from_numpy(x.astype(np.float32))[:, None], labels

    order = np.random.default_rng(0).permutation(len(parts["y_test"]))  # they come by class
    x, y = parts["X_test"][order], parts["y_test"][order]
    task = classification(
        split(parts["X_train"], parts["y_train"]),
        split(x[:1000], y[:1000]),
        split(x[1000:3000], y[1000:3000]),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SeriesNet(len(names))
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    fit(model, task, TrainConfig(epochs=30, lr=0.05, batch_size=32), seed=0)
    torch.set_num_threads(before)
    return model, task


LONGEST = 4  # stages in a recorded pipeline
WORKLOADS: dict[str, Callable[[], tuple[nn.Module, Task]]] = {"digits": digits, "ecg5000": ecg5000}
