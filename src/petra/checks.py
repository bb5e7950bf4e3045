"""What is checked of a model and its data before anything expensive starts, and how both are recognised again."""

from __future__ import annotations

import hashlib
from itertools import islice

import torch
from torch import nn

from petra.core.errors import ConfigError, DataError
from petra.runtimes.torch_eager import lacks_cuda
from petra.tasks.base import Task
from petra.tasks.inputs import call, named, prediction

CHECKED_BATCHES = 16  # of every split; labels of in-memory splits are checked in full


def check_device(device: str) -> None:
    """Raise ConfigError unless stages can train on `device` here."""
    allowed, missing = ["cpu"], lacks_cuda()
    if not missing:
        allowed += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if device not in allowed:
        reason = f": {missing}" if missing and device.startswith("cuda") else ""
        raise ConfigError(f"device: cannot train on {device!r}{reason}", hint=f"allowed here: {', '.join(allowed)}")


@torch.no_grad()
def check_problem(model: nn.Module, task: Task) -> None:
    """Run the model on a first batch of every split and hold outputs and targets against the task.

    Raises DataError naming split and batch: wrong shapes, labels out of range, empty split, inputs that the model
    does not take.
    """
    was_training = model.training
    model.eval()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, split in task.splits():
        for i, (inputs, target) in enumerate(islice(split.batches(64), CHECKED_BATCHES)):
            where = f"{name} split, batch {i}"
            for key, tensor in named(inputs).items():
                shape = tuple(tensor.shape[1:])
                if shapes.setdefault(key, shape) != shape:
                    raise DataError(
                        f"{where}: {key} has shape {shape} per item, the first batch had {shapes[key]}",
                        hint="all items must have one shape; pad or crop them",
                    )
            if i == 0:
                try:
                    output = prediction(call(model, inputs))
                except (RuntimeError, TypeError, ValueError, IndexError) as error:
                    shown = {key: tuple(t.shape) for key, t in named(inputs).items()}
                    raise DataError(
                        f"{where}: the model does not take these inputs {shown}: {str(error).splitlines()[0]}",
                        hint="the loader must yield what model(...) takes",
                    ) from error
                width = output[:1]
            task.check(width.expand(len(target), *width.shape[1:]), target, where=where)
            if i == 0 and len(output) != len(target):
                raise DataError(f"{where}: {len(output)} predictions for {len(target)} targets")
        whole = split.targets()
        if whole is not None:
            task.check(width.expand(len(whole), *width.shape[1:]), whole, where=f"{name} split")
    model.train(was_training)


def fingerprint(model: nn.Module, task: Task) -> str:
    """A hash of the model's structure and weights and of what identifies the data whatever order a loader yields it
    in: the sizes of the splits and the sorted validation targets.

    Cost: one pass over the weights and one over the validation split.
    """
    digest = hashlib.sha256(str(model).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    digest.update(",".join(f"{name}:{len(split)}" for name, split in task.splits()).encode())
    targets = torch.cat([target.reshape(len(target), -1) for _, target in task.val.batches(1024)])
    digest.update(targets.double().sum(1).sort().values.numpy().tobytes())
    return digest.hexdigest()
