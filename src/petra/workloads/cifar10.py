"""CIFAR-10 with pretrained ResNet-20 and ResNet-56.

Reads, without unpickling anything unsafe, whatever form of the data is at hand: the official binary version
(``data_batch_1.bin``), the official Python version (``data_batch_1``), an ``.npz`` with x_train/y_train, x_val/y_val,
x_test/y_test (uint8 (n, 32, 32, 3), labels), or lossless mosaics (``train.webp`` beside ``labels.npz``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from petra.core.errors import DataError
from petra.core.rng import generator
from petra.tasks.base import Task
from petra.tasks.classification import classification
from petra.tasks.inputs import Inputs
from petra.workloads.augment import mirror, shift
from petra.workloads.cifar_files import read_arrays
from petra.workloads.resnet import CifarResNet

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
DEPTHS: Mapping[str, int] = {"resnet20": 20, "resnet56": 56}


def data_root() -> Path:
    """Where workload data lives: $PETRA_DATA, else ``../shared/data`` or ``data`` beside the current directory."""
    given = os.environ.get("PETRA_DATA")
    candidates = [Path(given)] if given else [Path("../shared/data"), Path("data")]
    for path in candidates:
        if path.is_dir():
            return path.resolve()
    raise DataError(
        f"no data directory: looked at {', '.join(map(str, candidates))}",
        hint="set PETRA_DATA to a directory that holds cifar10/ and weights/, or pass data= and weights=",
    )


def normalise(images: np.ndarray) -> Tensor:
    """uint8 (n, 32, 32, 3) -> float32 (n, 3, 32, 32), standardised as the pretrained weights expect."""
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    return ((x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)).contiguous()


def augment(inputs: Inputs, rng: torch.Generator) -> Inputs:
    """The usual: shifts of up to 4 pixels and mirror images."""
    assert isinstance(inputs, Tensor)
    return mirror(shift(inputs, 4, rng), rng)


def cifar10_task(data: str | Path | None = None, *, train_items: int | None = None, val_items: int = 5000) -> Task:
    """The task on the data found at `data` (default: ``cifar10`` under the data root).

    Where the source has no validation split, `val_items` of its training images are set aside by a fixed draw.
    `train_items` keeps only the first so many training images.
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
        parts[split] = (normalise(arrays[f"x_{split}"][:stop]), labels)
    return classification(parts["train"], parts["val"], parts["test"], augment=augment)


def pretrained(model: str = "resnet20", weights: str | Path | None = None) -> nn.Module:
    """A ResNet with the weights of a state dict file (default: ``weights/MODEL.pt`` under the data root)."""
    if model not in DEPTHS:
        raise DataError(f"unknown model {model!r}", hint=f"allowed: {', '.join(DEPTHS)}")
    path = Path(weights) if weights is not None else data_root() / "weights" / f"{model}.pt"
    if not path.is_file():
        raise DataError(f"{path}: no such weights file", hint="pass weights=, a state dict saved with torch.save")
    net = CifarResNet(DEPTHS[model])
    state = torch.load(path, map_location="cpu", weights_only=True)
    net.load_state_dict(state)
    return net.eval()


def cifar10(
    *,
    model: str = "resnet20",
    data: str | None = None,
    weights: str | None = None,
    train_items: int | None = None,
) -> tuple[nn.Module, Task]:
    """A pretrained CIFAR-10 ResNet and its task."""
    return pretrained(model, weights), cifar10_task(data, train_items=train_items)
