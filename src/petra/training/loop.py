"""The one training loop. Every stage that trains calls `fit`; what differs between them is the loss
they pass in.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from petra.core.errors import DivergedError
from petra.tasks.base import Augment, Task
from petra.tasks.data import Split
from petra.tasks.inputs import Outputs, call, main_output, map_inputs, predictions
from petra.training.config import TrainConfig as TrainConfig
from petra.training.config import learning_rate_factor as learning_rate_factor
from petra.training.config import make_optimizer
from petra.training.continuing import put_back, taken
from petra.training.effort import Effort
from petra.training.epoch import LossFunction as LossFunction
from petra.training.epoch import Place, Run, train_epoch
from petra.training.epoch import Progress as Progress
from petra.training.precision import choose_precision


@dataclass(frozen=True)
class TrainResult:
    """What training did: the validation score of the weights it started from, after every epoch
    (`curve`), and of those it left (`score_after`).

    Of the steps of all `epochs` it made `steps`, which are fewer where it was stopped early, the
    first `continued` of them in an earlier evaluation. `trained_parameters` might change, shared
    ones counted once. `device_memory_mb` is the most that a GPU held of it (2**20 bytes), 0
    elsewhere.
    """

    epochs: int
    steps: int
    continued: int
    score_before: float
    score_after: float
    curve: tuple[float, ...]
    precision: str
    seconds: float
    trained_parameters: int
    device_memory_mb: float = 0.0

    def as_details(self) -> dict[str, object]:
        plain = {k: round(v, 5) if isinstance(v, float) else v for k, v in vars(self).items()}
        if not self.device_memory_mb:
            del plain["device_memory_mb"]
        return {**plain, "curve": [round(score, 5) for score in self.curve]}


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
    """All outputs of a split by name that have a part of one shape for each item, and its targets,
    on the CPU. Leaves the training mode as it was.
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
    sizes = [len(target) for target in targets]
    whole = {name: torch.cat(t) for name, t in outputs.items() if _of_items(t, sizes)}
    return whole, torch.cat(targets)


def _of_items(parts: list[Tensor], sizes: list[int]) -> bool:
    """Whether an output has a part of one shape for each item of batches of these sizes."""
    alike = len({part.shape[1:] for part in parts}) == 1
    return alike and [len(part) if part.ndim else -1 for part in parts] == sizes


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
    effort: Effort | None = None,
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
    why. torch's global random state is put back afterwards. `effort` says how much of all this
    happens now, and what it goes on from: bit for bit what it would have been in one go. Cost:
    `epochs` passes forward and backward over the training split plus one forward pass over the
    validation split per epoch.
    """
    started = time.perf_counter()
    effort = effort or Effort()
    precision = choose_precision(model, device)
    model.to(device)
    precision.prepare(model)
    own = config.loss_of(task)
    base = loss_fn or (lambda outputs, inputs, target: own(outputs, target))
    per_epoch = steps_per_epoch(task.train, config.batch_size)
    run = Run(
        model, task, config, base, penalty, augment, make_optimizer(model, config),
        zero_masks(model), precision, seed, device, per_epoch, progress,
    )  # fmt: skip
    steps = effort.begin(run.total, per_epoch)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        curve = _train(run, effort, steps)
    model.eval()
    seconds = time.perf_counter() - started
    held = torch.cuda.max_memory_allocated(device) / 2**20 if device.startswith("cuda") else 0.0
    return TrainResult(
        config.epochs, steps, curve.continued, curve.before, curve.last, tuple(curve.scores),
        precision.name, seconds, count, held,
    )  # fmt: skip


@dataclass
class _Curve:
    """Validation scores: of the weights at the start, after each epoch, and the last one known."""

    before: float
    scores: list[float]
    last: float
    continued: int = 0


def _train(run: Run, effort: Effort, steps: int) -> _Curve:
    """Train up to step `steps`, from where an earlier evaluation was stopped or from the start."""
    place, state = None, effort.found(steps)
    if state is not None:
        place = put_back(run, state)
    if state is not None and place is not None:
        scores = [float(score) for score in state.record["curve"]]
        before = float(state.record["before"])
        curve = _Curve(before, scores, [before, *scores][-1], state.steps)
        for done in range(1, len(scores) + 1):
            effort.watch([before, *scores[:done]], run.config.epochs)
    else:
        before = _score(run)
        place, curve = Place(), _Curve(before, [], before)
        torch.manual_seed(run.seed)
    last, rest = divmod(steps, run.per_epoch)
    while place.epoch < last:
        train_epoch(run, place)
        curve.last = _score(run)
        if not math.isfinite(curve.last):
            raise DivergedError(
                f"the validation {run.task.metric} is {curve.last} after epoch {place.epoch}"
            )
        curve.scores.append(curve.last)
        effort.watch([curve.before, *curve.scores], run.config.epochs)
    if rest > place.batches:
        train_epoch(run, place, rest)
    if steps and effort.keeps:  # one that has not begun starts from weights that are to change
        effort.keep(taken(run, place, curve.before, curve.scores))
    if place.batches:
        curve.last = _score(run)
    return curve


def _score(run: Run) -> float:
    """The quality on the validation split as the weights are now."""
    return run.task.quality_of(*predict_all(run.model, run.task.val, device=run.device))
