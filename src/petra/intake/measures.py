"""What a task measures and trains with, tried on the model's outputs before anything depends on
it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petra.core.errors import DataError, PetraError
from petra.core.interface import Interface
from petra.tasks.base import Task
from petra.tasks.inputs import Inputs, Outputs, batch_size, call, map_inputs, predictions
from petra.tasks.losses import Loss

ITEMS = 8  # that losses are tried on


def check_judged(interface: Interface) -> None:
    """Raise DataError for an output that is judged and has no part of one shape for each item."""
    for spec in interface.outputs:
        if spec.name not in interface.judged:
            continue
        if spec.batch != 0:
            raise DataError(
                f"the model's output {spec} has no part for each item",
                hint="let the model return what it finds for items, along dimension 0; what is the"
                " same for all of them belongs in the score or the loss",
            )
        if len(spec.free) > 1:
            raise DataError(
                f"the model's output {spec} has another shape for other items",
                hint="let the model sum it up, or pad it to one size",
            )


def check_losses(task: Task, model: nn.Module) -> None:
    """Raise DataError, naming loss and outputs, for a loss that cannot be trained with: one that
    fails on the first items of the training split, or is no scalar with a gradient. `model`, which
    this changes, is run once, in training mode.
    """
    inputs, target = next(iter(task.train.batches(ITEMS)))
    n = min(ITEMS, batch_size(inputs))
    inputs, target = map_inputs(inputs, lambda t: t[:n].clone()), target[:n]
    outputs = _in_training(model, inputs)
    if outputs is None:
        return
    for loss in task.losses():
        given = {k: _with_gradient(t) for k, t in outputs.items()}
        with torch.enable_grad():
            _check(loss, given, target.clone())


def _in_training(model: nn.Module, inputs: Inputs) -> Outputs | None:
    """Outputs as training sees them; None where a training step will say what is wrong."""
    model.train()
    try:
        return predictions(call(model, inputs))
    except Exception:  # noqa: BLE001 - foreign code raises what it likes
        return None


def _with_gradient(t: Tensor) -> Tensor:
    fresh = t.detach().clone()
    return fresh.requires_grad_() if fresh.is_floating_point() else fresh


def _check(loss: Loss, outputs: Outputs, target: Tensor) -> None:
    try:
        found: object = loss(outputs, target)
    except PetraError:
        raise
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0]
        raise DataError(
            f"the loss {loss.name!r} raised {type(error).__name__}: {said}, of {_shapes(outputs)}"
            f" and targets {tuple(target.shape)} {target.dtype}",
            hint=_hint(said, target),
        ) from error
    if not isinstance(found, Tensor) or found.numel() != 1 or not found.requires_grad:
        kind = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        lacks = "" if isinstance(found, Tensor) and found.requires_grad else " without a gradient"
        raise DataError(
            f"the loss {loss.name!r} returned {kind}{lacks}",
            hint="it must return a scalar tensor computed from the outputs, such as .mean()",
        )


def _shapes(outputs: Outputs) -> str:
    return "outputs " + ", ".join(f"{name} {tuple(t.shape)}" for name, t in outputs.items())


def _hint(said: str, target: Tensor) -> str:
    if "dtype" in said or "scalar type" in said or "not implemented for" in said:
        return f"targets are {target.dtype}: target.long() for class indices, target.float() else"
    return (
        "a function whose first parameter is called outputs gets all outputs by name, any other the"
        " one called logits, or else the first"
    )
