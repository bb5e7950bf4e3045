"""How a model and its data are recognised again when a study goes on."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from petra.tasks.base import Task


def fingerprint(model: nn.Module, task: Task) -> str:
    """A hash of the model's structure and weights and of what identifies the data whatever order a
    loader yields it in: the sizes of the splits and the sorted validation targets.

    Cost: one pass over the weights and one over the validation split.
    """
    digest = hashlib.sha256(str(model).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(
            tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    digest.update(",".join(f"{name}:{len(split)}" for name, split in task.splits()).encode())
    targets = torch.cat([target.reshape(len(target), -1) for _, target in task.val.batches(1024)])
    digest.update(targets.double().sum(1).sort().values.numpy().tobytes())
    return digest.hexdigest()
