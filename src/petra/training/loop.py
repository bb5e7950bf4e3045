"""The one training loop. Every stage that trains calls `fit`; what differs between them is the loss
they pass in.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from petra.core.errors import DivergedError
from petra.core.pipeline import Value
from petra.core.rng import derive_seed
from petra.model.trainability import is_frozen
from petra.tasks.base import Augment, Task
from petra.tasks.data import Split
from petra.tasks.inputs import Inputs, Outputs, call, main_output, map_inputs, predictions
from petra.tasks.losses import Loss
from petra.training.blame import Blame
from petra.training.precision import Precision, choose_precision

LossFunction = Callable[[Outputs, Inputs, Tensor], Tensor]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class TrainConfig:
    """How to train, not at all with no epochs. `lr` is the peak rate; `warmup` the share of steps
    that ramp up to it; `loss` is the name of one of `task.losses()` or "default", `loss_values`
    sets those of its parameters that it has; `clip_norm` 0 turns gradient clipping off.
    """

    epochs: int
    lr: float
    optimizer: str = "sgd"
    schedule: str = "cosine"
    warmup: float = 0.05
    batch_size: int = 128
    weight_decay: float = 5e-4
    clip_norm: float = 5.0
    loss: str = "default"
    loss_values: Mapping[str, Value] = field(default_factory=dict)

    def loss_of(self, task: Task) -> Loss:
        """The loss of the task that this names."""
        return task.loss(self.loss).having(self.loss_values)


@dataclass(frozen=True)
class TrainResult:
    """What training did: the validation score of the weights it started from, after every epoch
    (`curve`), and of those it left (`score_after`).
    """

    epochs: int
    steps: int
    score_before: float
    score_after: float
    curve: tuple[float, ...]
    precision: str
    seconds: float

    def as_details(self) -> dict[str, object]:
        plain = {k: round(v, 5) if isinstance(v, float) else v for k, v in vars(self).items()}
        return {**plain, "curve": [round(score, 5) for score in self.curve]}


def _optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    decay: list[nn.Parameter] = []
    no_decay: list[nn.Parameter] = []
    for p in model.parameters():
        if p.requires_grad:
            (no_decay if p.ndim <= 1 else decay).append(p)  # norms and biases are not shrunk
    groups = [
        {"params": decay, "weight_decay": config.weight_decay},
        {"params": no_decay, "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True)


def learning_rate_factor(step: int, total: int, *, schedule: str, warmup: float) -> float:
    """Multiplier of the peak rate at `step` of `total`.

    cosine: linear warm-up to 1, then a half cosine to 0 (Loshchilov & Hutter 2017). one_cycle: the
    same two phases by cosine from 1/25, with the peak at no less than 30% of the way (Smith & Topin
    2019).
    """
    x = step / max(1, total)
    if schedule == "one_cycle":
        peak = max(warmup, 0.3)
        if x < peak:
            return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * x / peak))
    else:
        peak = warmup
        if x < peak:
            return (step + 1) / (peak * total + 1)
    return 0.5 * (1 + math.cos(math.pi * (x - peak) / (1 - peak)))


@torch.no_grad()
def predict(
    model: nn.Module, split: Split, *, batch_size: int = 256, device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """All predictions, of the one output that is judged, and targets of a split, on the CPU: (n,
    ...), (n, ...). Leaves the training mode as it was.
    """
    outputs, targets = predict_all(model, split, batch_size=batch_size, device=device)
    return main_output(outputs), targets


@torch.no_grad()
def predict_all(
    model: nn.Module, split: Split, *, batch_size: int = 256, device: str = "cpu"
) -> tuple[Outputs, Tensor]:
    """All outputs of a split by name and its targets, on the CPU. Leaves the training mode as it
    was.
    """
    was_training = model.training
    _set_mode(model, training=False)
    outputs: dict[str, list[Tensor]] = {}
    targets = []
    for inputs, target in split.batches(batch_size):
        found = predictions(call(model, map_inputs(inputs, lambda t: t.to(device))))
        for name, tensor in found.items():
            outputs.setdefault(name, []).append(tensor.cpu())
        targets.append(target)
    _set_mode(model, training=was_training)
    return {name: torch.cat(parts) for name, parts in outputs.items()}, torch.cat(targets)


def _set_mode(model: nn.Module, *, training: bool) -> None:
    if not isinstance(model, torch.fx.GraphModule):  # exported graphs have their mode baked in
        model.train(training)


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Batches of one training pass; read through once only where the source does not know its
    length.
    """
    return split.steps(batch_size)


def zero_masks(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Weights of the modules with a true attribute `keep_zeros`, each with a mask that is 0 where
    the weight is.
    """
    kept = [module for module in model.modules() if getattr(module, "keep_zeros", False)]
    weights: list[Any] = [module.weight for module in kept]
    return [(w, (w.detach() != 0).to(w.dtype)) for w in weights]


def fit(
    model: nn.Module,
    task: Task,
    config: TrainConfig,
    *,
    seed: int,
    device: str = "cpu",
    loss_fn: LossFunction | None = None,
    penalty: Callable[[], Tensor] | None = None,
    augment: Augment | None = None,
    progress: Progress = lambda done, total, note: None,
) -> TrainResult:
    """Train the weights of `model` that require a gradient, in place, and leave it, in eval mode,
    with those of the last epoch. Batch norms with frozen weights keep their statistics.

    No epoch is chosen by its score: the validation split is what candidates are judged by, and who
    picks weights by it looks better there than on any other data. The schedules end at a rate of
    zero, so the last epoch is the one to keep.

    `loss_fn(outputs, inputs, target)` replaces the task's loss; `penalty()`, a function of the
    weights alone, is added to it, and finds the loss's gradient in their ``grad``. `augment` acts
    on training batches after the task's own. Zeros in the weights of modules with a true attribute
    `keep_zeros` stay zero. A single item left over at the end of a pass is not trained on. Raises
    DivergedError when the loss is not finite, DataError, naming split and item, where the data is
    why. The caller's global random state is untouched. Cost: `epochs` passes forward and backward
    over the training split plus one forward pass over the validation split per epoch.
    """
    started = time.perf_counter()
    precision = choose_precision(model, device)
    model.to(device)
    precision.prepare(model)
    own = config.loss_of(task)
    base = loss_fn or (lambda outputs, inputs, target: own(outputs, target))
    score = task.quality_of(*predict_all(model, task.val, device=device))
    before, curve = score, list[float]()
    total = steps_per_epoch(task.train, config.batch_size) * config.epochs
    run = _Run(
        model, task, config, base, penalty, augment, _optimizer(model, config), zero_masks(model),
        precision, seed, device, total, progress,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        for epoch in range(config.epochs):
            _epoch(run, epoch)
            score = task.quality_of(*predict_all(model, task.val, device=device))
            if not math.isfinite(score):
                raise DivergedError(
                    f"the validation {task.metric} is {score} after epoch {epoch + 1}"
                )
            curve.append(score)
    model.eval()
    seconds = time.perf_counter() - started
    return TrainResult(config.epochs, total, before, score, tuple(curve), precision.name, seconds)


@dataclass(frozen=True)
class _Run:
    """What stays the same from epoch to epoch."""

    model: nn.Module
    task: Task
    config: TrainConfig
    loss_fn: LossFunction
    penalty: Callable[[], Tensor] | None
    augment: Augment | None
    optimizer: torch.optim.Optimizer
    masks: list[tuple[Tensor, Tensor]]
    precision: Precision
    seed: int
    device: str
    total: int
    progress: Progress


def _epoch(run: _Run, epoch: int) -> None:
    model, config = run.model, run.config
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and is_frozen(module):
            module.eval()  # what is frozen keeps its statistics, too
    shuffle = derive_seed(run.seed, "shuffle", epoch)
    random = torch.Generator().manual_seed(derive_seed(run.seed, "augment", epoch))
    step, items = epoch * (run.total // config.epochs), 0
    for inputs, target in run.task.train.training_pass(config.batch_size, seed=shuffle):
        blame = Blame(run.task, run.task.train, shuffle, inputs, target, items, config.batch_size)
        items += len(target)
        factor = learning_rate_factor(
            step, run.total, schedule=config.schedule, warmup=config.warmup
        )
        for group in run.optimizer.param_groups:
            group["lr"] = config.lr * factor
        for augment in (run.task.augment, run.augment):
            inputs = augment(inputs, random) if augment else inputs
        inputs = map_inputs(inputs, lambda t: run.precision.arrange(t.to(run.device)))
        run.optimizer.zero_grad(set_to_none=True)
        loss = _loss(run, inputs, target, blame)
        if run.penalty is not None:
            loss = loss + _backward(run.penalty())
        if not torch.isfinite(loss):
            rate = f"{config.lr:g} with {config.optimizer}"
            blame.loss(loss.item(), model, step=step, total=run.total, rate=rate)
        if config.clip_norm > 0:
            nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        run.optimizer.step()
        with torch.no_grad():
            for weight, mask in run.masks:
                weight.mul_(mask)
        step += 1
        run.progress(step, run.total, f"epoch {epoch + 1}/{config.epochs}")


def _loss(run: _Run, inputs: Inputs, target: Tensor, blame: Blame) -> Tensor:
    """The loss of a batch, its gradient added to that of the weights. Raises DataError where the
    batch is at fault.
    """
    outputs: Outputs | None = None
    try:
        with run.precision.autocast():
            outputs = predictions(call(run.model, inputs))
        return _backward(run.loss_fn(outputs, inputs, target.to(run.device)))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        blame.error(error, main_output(outputs).detach()[:1].cpu() if outputs else None)
        raise


def _backward(loss: Tensor) -> Tensor:
    """Add the gradient of `loss` to that of the weights; its value."""
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()
