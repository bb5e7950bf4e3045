"""What training data says about a model's weights and channels: gradients and activations, in
evaluation mode.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.model.kinds import Convolution, is_weighted
from petra.model.surgery import differentiable, evaluating
from petra.tasks.base import Task
from petra.tasks.inputs import Inputs, call, map_inputs, named_outputs
from petra.tasks.losses import Loss

BATCH_SIZE = 64
TAYLOR_BATCHES = 16
CURVATURE_BATCHES = 4
MICRO_BATCH = 8
ENTROPY_BATCHES = 4
SMOOTHING = 0.1


def mean_absolute_gradients(
    model: nn.Module, task: Task, *, batches: int, seed: int, device: str = "cpu"
) -> tuple[dict[str, Tensor], int]:
    """Mean of |dL/dw| over batches of the training split by parameter name, and the number of
    items.

    Absolute values are averaged, not gradients: near a minimum gradients cancel and would hide
    every channel. The model's parameters must require gradients. Cost: one forward and backward
    pass per batch.
    """
    total: dict[str, Tensor] = {}
    count = items = 0
    for inputs, target in itertools.islice(task.train.batches(BATCH_SIZE, seed=seed), batches):
        for name, gradient in _gradients(model, task, inputs, target, device).items():
            total[name] = total.get(name, 0) + gradient.abs()
        count += 1
        items += len(target)
    return {name: t / count for name, t in total.items()}, items


def empirical_fisher(
    model: nn.Module,
    task: Task,
    *,
    batches: int,
    seed: int,
    device: str = "cpu",
    micro_batch: int = MICRO_BATCH,
) -> tuple[dict[str, Tensor], int]:
    """Mean over items of (dL/dw)^2, the diagonal of the empirical Fisher, by parameter name; and
    the number of items.

    Estimated from micro-batches of B items as B (mean gradient)^2, which is exact for B = 1 and,
    near a minimum, where the gradients of single items are independent with mean zero, unbiased for
    any B. The model's parameters must require gradients. Cost: one forward and backward pass per
    micro-batch.
    """
    total: dict[str, Tensor] = {}
    items = 0
    for inputs, target in itertools.islice(task.train.batches(BATCH_SIZE, seed=seed), batches):
        for start in range(0, len(target), micro_batch):
            part = slice(start, start + micro_batch)
            few = target[part]
            for name, gradient in _gradients(
                model, task, _items(inputs, part), few, device
            ).items():
                total[name] = total.get(name, 0) + len(few) ** 2 * gradient.square()
            items += len(few)
    return {name: t / items for name, t in total.items()}, items


def read_activations(
    model: nn.Module, task: Task, *, batches: int, seed: int, device: str = "cpu"
) -> tuple[dict[str, Tensor], int]:
    """(N, C) what every weighted layer reads, a mean over positions for each item and channel, by
    the layer's path; and the number of items. A layer called more than once has more rows. Cost:
    one forward pass per batch.
    """
    seen: dict[str, list[Tensor]] = {}

    def record(path: str, module: nn.Module) -> object:
        def hook(module: nn.Module, args: tuple[object, ...]) -> None:
            if args and isinstance(args[0], Tensor) and args[0].ndim > 1:
                seen.setdefault(path, []).append(_pooled(module, args[0].detach()).float().cpu())

        return module.register_forward_pre_hook(hook)

    hooks: list[object] = [record(path, m) for path, m in model.named_modules() if is_weighted(m)]
    items = 0
    try:
        with evaluating(model), torch.no_grad():
            for inputs, target in itertools.islice(
                task.train.batches(BATCH_SIZE, seed=seed), batches
            ):
                call(model, map_inputs(inputs, lambda t: t.to(device)))
                items += len(target)
    finally:
        for handle in hooks:
            handle.remove()  # type: ignore[attr-defined]
    return {path: torch.cat(parts) for path, parts in seen.items()}, items


def gather(
    kind: str, model: nn.Module, task: Task, *, seed: int, device: str
) -> tuple[Mapping[str, Tensor], int]:
    """What importance `kind` needs besides weights, by parameter name or layer path, and the items
    it rests on.
    """
    match kind.removeprefix("group_"):
        case "taylor":
            return mean_absolute_gradients(
                model, task, batches=TAYLOR_BATCHES, seed=seed, device=device
            )
        case "hessian":
            return empirical_fisher(
                model, task, batches=CURVATURE_BATCHES, seed=seed, device=device
            )
        case "activation_entropy":
            return read_activations(model, task, batches=ENTROPY_BATCHES, seed=seed, device=device)
    return {}, 0


def _gradients(
    model: nn.Module, task: Task, inputs: Inputs, target: Tensor, device: str
) -> dict[str, Tensor]:
    """Gradients of the mean loss over the items, on the CPU, by name; parameters without one are
    left out.
    """
    with evaluating(model), differentiable(model):
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        outputs = named_outputs(call(model, map_inputs(inputs, lambda t: t.to(device))))
        loss = smoothed_loss(task)(outputs, target.to(device))
        gradients = gradients_of(loss, list(named.values()))
    return {
        name: g.float().cpu() for name, g in zip(named, gradients, strict=True) if g is not None
    }


def smoothed_loss(task: Task) -> Loss:
    """The task's first loss, with labels smoothed where it has them: items learnt by heart have no
    gradient otherwise, and the few that are not decide alone.
    """
    return task.loss().having({"label_smoothing": SMOOTHING})


def gradients_of(loss: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """dL/dw, None where the loss does not depend on w.

    Raises StageRefused when it depends on nothing.
    """
    if not loss.requires_grad:
        raise StageRefused(
            "no gradient leads from the loss to any weight: the model detaches what it computes",
            hint="rank by something else than gradients, or take detach() out of the forward pass",
        )
    return torch.autograd.grad(loss, list(weights), allow_unused=True)


def _items(inputs: Inputs, part: slice) -> Inputs:
    return map_inputs(inputs, lambda t: t[part])


def _pooled(module: nn.Module, x: Tensor) -> Tensor:
    """(N, C) mean over positions: convolutions read (N, C, ...), linear layers (N, ..., C)."""
    if isinstance(module, Convolution):
        return x.flatten(2).mean(2) if x.ndim > 2 else x
    return x.flatten(1, -2).mean(1) if x.ndim > 2 else x
