"""What training items say of single weights: gradients, and the norms of layers' inputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from petra.methods.base import Context
from petra.methods.prune.statistics import gradients_of
from petra.methods.prune.zeros import taylor
from petra.model.surgery import differentiable, evaluating
from petra.tasks.inputs import call, map_inputs, predictions

BATCHES = 16
BATCH_SIZE = 64


def taylor_scores(
    model: nn.Module, layers: Mapping[str, Any], context: Context
) -> dict[str, Tensor]:
    """Sum over training batches of every weight's `taylor`, for the layers that a gradient reaches.

    Scores are summed, not gradients, which cancel near a minimum. Evaluation mode, so no statistics
    move. Cost: one forward and backward pass per batch.
    """
    task = context.task
    scores: dict[str, Tensor] = {}
    with evaluating(model), differentiable(model):
        weights = [layer.weight for layer in layers.values()]
        for inputs, target in _batches(context):
            outputs = predictions(call(model, map_inputs(inputs, lambda t: t.to(context.device))))
            loss = task.loss()(outputs, target.to(context.device))
            gradients = gradients_of(loss, weights)
            for path, weight, gradient in zip(layers, weights, gradients, strict=True):
                if gradient is not None:
                    scores[path] = scores.get(path, 0.0) + taylor(weight.detach(), gradient)
    return scores


def input_norms(model: nn.Module, layers: Mapping[str, Any], context: Context) -> dict[str, Tensor]:
    """(inputs,) 2-norm of every input feature or channel of the layers, over all training items,
    places and calls.

    Cost: one forward pass per batch.
    """
    squares: dict[str, Tensor] = {}

    def record(path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            x: Tensor = args[0].detach().float()
            places = layers[path].weight.ndim - 2  # dimensions behind the channels
            last = x.movedim(-1 - places, -1)
            squares[path] = squares.get(path, 0.0) + last.reshape(-1, last.shape[-1]).square().sum(
                0
            )

        return hook

    handles = [layer.register_forward_pre_hook(record(path)) for path, layer in layers.items()]
    try:
        with evaluating(model), torch.no_grad():
            for inputs, _ in _batches(context):
                call(model, map_inputs(inputs, lambda t: t.to(context.device)))
    finally:
        for handle in handles:
            handle.remove()
    return {path: squares[path].sqrt() for path in layers if path in squares}


def _batches(context: Context) -> Iterable[tuple[Any, Tensor]]:
    return itertools.islice(
        context.task.train.batches(BATCH_SIZE, seed=context.seed_for("importance")), BATCHES
    )
