"""Batches of one item and of many: predictions belong to items, and training never meets an item
alone unprepared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from petra.core.errors import DataError
from petra.intake.behaviour import ANY_SIZE, MANY, SINGLY, Probe, distance, run
from petra.intake.watch import layer_name, watching
from petra.tasks.inputs import Inputs, call, map_inputs
from petra.tasks.ragged import RaggedItems

MIXED = 1e-2  # rms difference over the spread, more than rounding makes of batches of other sizes
NORM_HINT = (
    "a norm needs running statistics: track_running_stats=True, and a pass over the training data"
    " in training mode"
)
ALONE_HINT = (
    "two items and more work; name the dimension where one is squeezed or averaged away:"
    " x.squeeze(-1)"
)


def check_batches(model: nn.Module, probe: Probe) -> Tensor:
    """The predictions (MANY, ...) of the probe, which are one and the same in batches of 1, 2 and
    MANY items.

    Raises DataError where an item alone loses the batch axis, and where an item's prediction
    depends on the others.
    """
    where = f"{probe.name} split"
    many = run(model, probe.take(MANY), where=where, hint=ANY_SIZE)
    pair = run(model, probe.take(2), where=where)
    alone = []
    for i in range(SINGLY):
        one = map_inputs(probe.inputs, lambda t, i=i: t[i : i + 1].clone())  # type: ignore[misc]
        alone.append(_run_alone(model, one, where))
    for n, output in ((1, alone[0]), (2, pair), (MANY, many)):
        _check_axis(output, n, many)
    singles = torch.cat(alone)
    apart = [distance(many[i], singles[i], spread=many) for i in range(SINGLY)]
    apart += [distance(pair[i], singles[i], spread=many) for i in range(2)]
    if sorted(apart)[len(apart) // 2] > MIXED:
        norms = _norms_of_batches(model)
        raise DataError(
            f"{where}: an item's prediction depends on the others in its batch: "
            f"{_by_batches(norms[0]) if norms else _what_mixes(model, probe)}",
            hint=(
                NORM_HINT
                if norms
                else "are items along dimension 0 everywhere (batch_first=True, softmax(-1))?"
            ),
        )
    return many


def check_padding(model: nn.Module, source: RaggedItems, spread: Tensor) -> None:
    """Raise DataError where an item's prediction depends on how far it is padded; `spread` are
    predictions (n, ...)."""
    items = torch.arange(min(SINGLY, len(source)))
    where = "val split"
    longest = int(source.ragged.lengths.argmax())
    padded = torch.cat([items, torch.tensor([longest])])
    together = run(model, source.take(padded)[0], where=where)
    apart = []
    for i in items:
        alone = run(model, source.take(i[None])[0], where=where)[0]
        apart.append(distance(together[i], alone, spread=spread))
    if sorted(apart)[len(apart) // 2] > MIXED:
        raise DataError(
            f"{where}: an item's prediction depends on how far it is padded",
            hint="keep what is padded out of sums, means and attention by the mask or the lengths:"
            " petra.Padding(mask='mask')",
        )


def _run_alone(model: nn.Module, one: Inputs, where: str) -> Tensor:
    try:
        return run(model, one, where=where)
    except DataError as error:
        norms = _norms_of_batches(model)
        reason = f": {_by_batches(norms[0])}" if norms else ""
        message = error.message.replace("these inputs", "one item alone, with the inputs", 1)
        raise DataError(
            f"{message}{reason}",
            hint=(
                NORM_HINT
                if norms or "more than 1 value per channel" in error.message
                else ALONE_HINT
            ),
        ) from error


def _by_batches(norm: str) -> str:
    return f"{norm} normalises with the statistics of the batch"


def _check_axis(output: Tensor, n: int, many: Tensor) -> None:
    if output.ndim == many.ndim and len(output) == n and output.shape[1:] == many.shape[1:]:
        return
    of = "one item" if n == 1 else f"{n} items"
    lost = n == 1 and output.ndim < many.ndim
    shapes = (
        f"the model returns shape {tuple(output.shape)} for {of}, {tuple(many.shape)} for {MANY}"
    )
    raise DataError(
        f"{shapes}: one item loses the batch axis" if lost else shapes,
        hint=(
            "name the dimension: x.squeeze(-1) instead of x.squeeze()"
            if lost
            else "predictions must have the items along dimension 0"
        ),
    )


def _norms_of_batches(model: nn.Module) -> list[str]:
    return [
        layer_name(model, path)
        for path, m in model.named_modules()
        if isinstance(m, _BatchNorm) and (m.training or m.running_mean is None)
    ]


def _what_mixes(model: nn.Module, probe: Probe) -> str:
    """The layer whose output for the first item changes with the batch while what it takes does
    not."""
    calls: list[list[tuple[str, list[Tensor], list[Tensor]]]] = []
    for n in (2, SINGLY):
        found: list[tuple[str, list[Tensor], list[Tensor]]] = []

        def seen(path: str, taken: list[Tensor], given: list[Tensor], found: Any = found) -> None:
            found.append(
                (
                    path,
                    [t[:1].clone() if t.ndim else t for t in taken],
                    [t[:1] for t in given if t.ndim],
                )
            )

        with watching(model, seen):
            call(model, probe.take(n))
        calls.append(found)
    for (path, taken, given), (other, taken2, given2) in zip(*calls, strict=False):
        if path == other and _all_near(taken, taken2) and not _all_near(given, given2):
            return layer_name(model, path)
    return "no single layer does it alone"


def _all_near(a: list[Tensor], b: list[Tensor]) -> bool:
    pairs = list(zip(a, b, strict=False))
    return len(a) == len(b) and all(
        x.shape == y.shape and distance(x, y) <= MIXED for x, y in pairs
    )


def check_training_alone(model: nn.Module, probe: Probe) -> None:
    """Raise DataError where `model`, which this changes, cannot train on a batch of one item and
    can on two.

    For a training split called `probe.name` that yields such batches.
    """
    model.train()
    run(model, probe.take(2), where=f"{probe.name} split, in training mode")
    try:
        run(model, probe.take(1), where=f"{probe.name} split")
    except DataError as error:
        norms = [
            layer_name(model, path)
            for path, m in model.named_modules()
            if isinstance(m, _BatchNorm)
        ]
        reason = f": {norms[0]} has no statistics of one" if norms else f": {error.message}"
        raise DataError(
            f"{probe.name} split: a batch holds one item, which the model cannot be trained"
            f" on{reason}",
            hint=(
                "give batches of two items or more: batch_size=64, or drop_last=True for what is"
                " left over"
            ),
        ) from error
