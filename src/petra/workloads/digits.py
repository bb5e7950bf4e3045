"""scikit-learn's handwritten digits: 1,797 real 8x8 images that ship with a dependency.

The first run anybody makes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.tasks.inputs import Inputs
from petra.training.loop import TrainConfig, fit
from petra.workloads.augment import shift


class DigitsNet(nn.Module):
    """A small residual network: three 3x3 stages of `width`, 2 `width`, 4 `width` channels on (n,
    1, 8, 8) images.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = _conv_bn(1, width)
        self.body = nn.ModuleList([_conv_bn(width, width), _conv_bn(width, width)])
        self.down1 = _conv_bn(width, 2 * width, stride=2)
        self.mid = nn.ModuleList([_conv_bn(2 * width, 2 * width), _conv_bn(2 * width, 2 * width)])
        self.down2 = _conv_bn(2 * width, 4 * width, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.body[1](torch.relu(self.body[0](x))))
        x = torch.relu(self.down1(x))
        x = torch.relu(x + self.mid[1](torch.relu(self.mid[0](x))))
        x = torch.relu(self.down2(x))
        logits: Tensor = self.classifier(self.pool(x).flatten(1))
        return logits


def _conv_bn(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
    )


def digits_task(*, seed: int = 0) -> Task:
    """The images, standardised, split 60/20/20 at random (stratified): 1,078 / 359 / 360 items."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(((images - 4.88) / 6.02).astype(np.float32)).reshape(-1, 1, 8, 8)
    y = torch.from_numpy(labels.astype(np.int64))
    index = np.arange(len(y))
    train, rest = train_test_split(index, test_size=0.4, random_state=seed, stratify=labels)
    val, test = train_test_split(rest, test_size=0.5, random_state=seed, stratify=labels[rest])

    def part(i: np.ndarray) -> tuple[Tensor, Tensor]:
        return x[i], y[i]

    def augment(inputs: Inputs, generator: torch.Generator) -> Inputs:
        assert isinstance(inputs, Tensor)
        return shift(inputs, 1, generator)

    return classification(
        part(train),
        part(val),
        part(test),
        augment=augment,
        preprocessing="8x8 grey values of 0 to 16: less 4.88, over 6.02",
    )


def digits(*, width: int = 32, epochs: int = 15, seed: int = 0) -> tuple[nn.Module, Task]:
    """A `DigitsNet` trained on the spot and its task.

    On one thread, a few seconds: images this small gain nothing from a second one, and where
    another process keeps a core busy, two threads spend their time waiting for each other.
    """
    task = digits_task(seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DigitsNet(width)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fit(model, task, TrainConfig(epochs=epochs, lr=0.1, batch_size=64), seed=seed)
    finally:
        torch.set_num_threads(threads)
    return model, task
