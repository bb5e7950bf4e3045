"""CIFAR-10 with pretrained ResNet-20, ResNet-56 and the ResNet-8 of MLPerf Tiny.

Reads, without unpickling anything unsafe, whatever form of the data is at hand: the official binary
version (``data_batch_1.bin``), the official Python version (``data_batch_1``), an ``.npz`` with
x_train/y_train, x_val/y_val, x_test/y_test (uint8 (n, 32, 32, 3), labels), or lossless mosaics
(``train.webp`` beside ``labels.npz``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from petra.core.errors import DataError
from petra.core.rng import generator
from petra.networks.resnet import CifarResNet, TinyResNet8
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.tasks.inputs import Inputs
from petra.workloads.augment import mirror, shift
from petra.workloads.cifar_files import read_arrays
from petra.workloads.places import data_root

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Pretrained:
    """A network, the file of its weights, the pixels it expects: standardised, or raw 0 to 255."""

    build: Callable[[], nn.Module]
    weights: str
    standardised: bool = True


MODELS: Mapping[str, Pretrained] = {
    "resnet20": Pretrained(lambda: CifarResNet(20), "resnet20.pt"),
    "resnet56": Pretrained(lambda: CifarResNet(56), "resnet56.pt"),
    "resnet8": Pretrained(TinyResNet8, "mlperf_tiny_resnet8.pt", standardised=False),
}


def pixels(images: np.ndarray, *, standardised: bool = True) -> Tensor:
    """uint8 (n, 32, 32, 3) -> float32 (n, 3, 32, 32), raw or standardised as the weights expect."""
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    if standardised:
        x = (x / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return x.contiguous()


def augment(inputs: Inputs, rng: torch.Generator) -> Inputs:
    """The usual: shifts of up to 4 pixels and mirror images. What is shifted in is zero."""
    assert isinstance(inputs, Tensor)
    return mirror(shift(inputs, 4, rng), rng)


def cifar10_task(
    data: str | Path | None = None,
    *,
    train_items: int | None = None,
    val_items: int = 5000,
    standardised: bool = True,
) -> Task:
    """The task on the data found at `data` (default: ``cifar10`` under the data root).

    Where the source has no validation split, `val_items` of its training images are set aside by a
    fixed draw. `train_items` keeps only the first so many training images.
    """
    arrays = read_arrays(Path(data) if data is not None else data_root() / "cifar10")
    if "x_val" not in arrays:
        order = generator(0, "cifar10", "validation").permutation(len(arrays["y_train"]))
        val, train = order[:val_items], order[val_items:]
        arrays |= {f"{k}_val": arrays[f"{k}_train"][val] for k in ("x", "y")}
        arrays |= {f"{k}_train": arrays[f"{k}_train"][train] for k in ("x", "y")}
    parts = {}
    for split in ("train", "val", "test"):
        stop = train_items if split == "train" else None
        labels = torch.from_numpy(arrays[f"y_{split}"][:stop].astype(np.int64))
        parts[split] = (pixels(arrays[f"x_{split}"][:stop], standardised=standardised), labels)
    raw = "pixels of 0 to 255, channels first"
    scaled = f"{raw}: over 255, less the means {MEAN}, over the deviations {STD}"
    return classification(
        parts["train"],
        parts["val"],
        parts["test"],
        augment=augment,
        preprocessing=scaled if standardised else f"{raw}, as they are",
    )


def pretrained(model: str = "resnet20", weights: str | Path | None = None) -> nn.Module:
    """A ResNet with the weights of a state dict file (default: the model's own under ``weights/``
    in the data root).
    """
    known = _known(model)
    path = Path(weights) if weights is not None else data_root() / "weights" / known.weights
    if not path.is_file():
        raise DataError(
            f"{path}: no such weights file",
            hint="pass weights=, a state dict saved with torch.save",
        )
    net = known.build()
    state = torch.load(path, map_location="cpu", weights_only=True)
    net.load_state_dict(state)
    return net.eval()


def _known(model: str) -> Pretrained:
    if model not in MODELS:
        raise DataError(f"unknown model {model!r}", hint=f"allowed: {', '.join(MODELS)}")
    return MODELS[model]


def cifar10(
    *,
    model: str = "resnet20",
    data: str | None = None,
    weights: str | None = None,
    train_items: int | None = None,
) -> tuple[nn.Module, Task]:
    """A pretrained CIFAR-10 ResNet and its task."""
    task = cifar10_task(data, train_items=train_items, standardised=_known(model).standardised)
    return pretrained(model, weights), task
