"""One pass of training over the data, or part of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.rng import derive_seed
from petra.model.surgery import evaluating
from petra.model.trainability import is_frozen
from petra.tasks.base import Augment, Task
from petra.tasks.inputs import Inputs, Outputs, call, main_output, map_inputs, predictions
from petra.training.blame import Blame
from petra.training.config import TrainConfig, learning_rate_factor
from petra.training.precision import Precision
from petra.training.random_state import kept_random_state

LossFunction = Callable[[Outputs, Inputs, Tensor], Tensor]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Run:
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
    per_epoch: int
    progress: Progress

    @property
    def total(self) -> int:
        """Steps of the whole training."""
        return self.per_epoch * self.config.epochs


@dataclass
class Place:
    """How far a training has come: all batches of the epochs before `epoch`, from 0, and `batches`
    of it. `random` draws the augmentation of that epoch.
    """

    epoch: int = 0
    batches: int = 0
    random: torch.Generator = field(default_factory=torch.Generator)


def train_epoch(run: Run, place: Place, until: int | None = None) -> None:
    """Train the rest of the epoch that has begun at `place`, or on to batch `until` of it."""
    model, config = run.model, run.config
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and is_frozen(module):
            module.eval()  # what is frozen keeps its statistics, too
    shuffle = derive_seed(run.seed, "shuffle", place.epoch)
    batches = run.task.train.training_pass(config.batch_size, seed=shuffle)
    if not place.batches:
        place.random.manual_seed(derive_seed(run.seed, "augment", place.epoch))
    items = 0
    if place.batches:
        with kept_random_state(run.device):  # which a data set may use, and had used before
            items = sum(len(target) for _, target in islice(batches, place.batches))
    for inputs, target in batches:
        blame = Blame(run.task, run.task.train, shuffle, inputs, target, items, config.batch_size)
        items += len(target)
        for augment in (run.task.augment, run.augment):
            inputs = augment(inputs, place.random) if augment else inputs
        _step(run, inputs, target, place.epoch * run.per_epoch + place.batches, blame)
        place.batches += 1
        done = place.epoch * run.per_epoch + place.batches
        run.progress(done, run.total, f"epoch {place.epoch + 1}/{config.epochs}")
        if place.batches == until:
            return
    place.epoch, place.batches = place.epoch + 1, 0


def _step(run: Run, inputs: Inputs, target: Tensor, step: int, blame: Blame) -> None:
    """One step on a batch."""
    model, config = run.model, run.config
    factor = learning_rate_factor(step, run.total, schedule=config.schedule, warmup=config.warmup)
    for group in run.optimizer.param_groups:
        group["lr"] = config.lr * factor
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


def _loss(run: Run, inputs: Inputs, target: Tensor, blame: Blame) -> Tensor:
    """The loss of a batch, its gradient added to that of the weights. Raises DataError where the
    batch is at fault, StageRefused where training mode is.
    """
    outputs: Outputs | None = None
    try:
        with run.precision.autocast():
            outputs = predictions(call(run.model, inputs))
        return _backward(run.loss_fn(outputs, inputs, target.to(run.device)))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        blame.error(error, main_output(outputs).detach()[:1].cpu() if outputs else None)
        full = isinstance(error, torch.OutOfMemoryError)  # with gradients; without, less is needed
        if outputs is None and not full and _runs_otherwise(run.model, inputs):
            raise StageRefused(
                f"the model runs, but not in training mode: {str(error).splitlines()[0]}",
                hint="where a branch that only training has, such as an auxiliary head, does not"
                " fit layers that were cut, give the model without it",
            ) from error
        raise


def _runs_otherwise(model: nn.Module, inputs: Inputs) -> bool:
    """Whether it takes these inputs in evaluation mode."""
    try:
        with evaluating(model), torch.no_grad():
            call(model, inputs)
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False
    return True


def _backward(loss: Tensor) -> Tensor:
    """Add the gradient of `loss` to that of the weights; its value."""
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()
