"""Where a training stands, taken and put back: weights, optimizer, random states, place.

What a task's own augmentation or a plugin's loss remembers from batch to batch is not part of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from petra.model.trainability import changing
from petra.training.effort import TrainingState
from petra.training.epoch import Place, Run
from petra.training.random_state import random_state, set_random_state


@runtime_checkable
class Stepping(Protocol):
    """A penalty or an augmentation that goes on with every step."""

    def skip(self, steps: int) -> None:
        """Be as after so many steps more."""


def taken(run: Run, place: Place, before: float, curve: Sequence[float]) -> TrainingState:
    """The state of a training that has come to `place`. Copies what it changes, and no more."""
    tensors = {f"model.{name}": t for name, t in changing(run.model).items()}
    plain: dict[str, dict[str, Any]] = {}
    for i, (_, state) in enumerate(_optimizer_states(run.optimizer)):
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{i}.{name}"] = value
            else:
                plain.setdefault(str(i), {})[name] = value
    tensors["augmentation"] = place.random.get_state()
    record = {
        **_identity(run),
        "steps": place.epoch * run.per_epoch + place.batches,
        "epoch": place.epoch,
        "batches": place.batches,
        "before": before,
        "curve": list(curve),
        "optimizer": plain,
        "random": random_state(run.device),
    }
    flat = torch.contiguous_format
    copies = {k: t.detach().cpu().clone(memory_format=flat) for k, t in tensors.items()}
    return TrainingState(copies, record)


def put_back(run: Run, state: TrainingState) -> Place | None:
    """Let `run`, which has not begun, go on from `state`; None, and nothing is changed, where it is
    not this training's.
    """
    record, own = state.record, changing(run.model)
    kept = {k.removeprefix("model."): t for k, t in state.tensors.items() if k[:6] == "model."}
    if any(record.get(name) != value for name, value in _identity(run).items()):
        return None
    # States from before frozen weights were left out hold them, too.
    if not own.keys() <= kept.keys() or any(kept[n].shape != t.shape for n, t in own.items()):
        return None
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(kept[name])
    for i, (p, values) in enumerate(_optimizer_states(run.optimizer)):
        values.update(record["optimizer"].get(str(i), {}))
        head = f"optimizer.{i}."
        for name in (k for k in state.tensors if k.startswith(head)):
            values[name.removeprefix(head)] = _laid_out_as(p, state.tensors[name])
    parts: tuple[object, ...] = (run.penalty, run.augment)
    for part in parts:
        if isinstance(part, Stepping):
            part.skip(state.steps)
    place = Place(record["epoch"], record["batches"])
    place.random.set_state(state.tensors["augmentation"])
    set_random_state(record["random"], run.device)
    return place


def _identity(run: Run) -> Mapping[str, Any]:
    """What two runs have in common of which one may go on where the other stopped."""
    return {"seed": run.seed, "per_epoch": run.per_epoch, "epochs": run.config.epochs}


def _optimizer_states(
    optimizer: torch.optim.Optimizer,
) -> list[tuple[nn.Parameter, dict[str, Any]]]:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return [(p, optimizer.state[p]) for p in parameters]


def _laid_out_as(p: nn.Parameter, tensor: Tensor) -> Tensor:
    """A copy with the memory format of `p`, as an optimizer makes what has its shape: kernels may
    round differently elsewhere.
    """
    if tensor.shape != p.shape or tensor.ndim == 0:
        return tensor.clone()
    return torch.empty_like(p, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
