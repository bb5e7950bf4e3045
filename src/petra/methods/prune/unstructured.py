"""Unstructured pruning: single weights become zero, and stay zero through later training."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter
from petra.methods.prune.statistics import gradients_of
from petra.model.surgery import differentiable, evaluating, has_derived_weight, shared_weights
from petra.space.domains import Choice, Real
from petra.space.effects import DENSE_WEIGHTS, FLOAT_WEIGHTS, TRAINABLE, Effects
from petra.tasks.inputs import call, map_inputs, predictions
from petra.training.untrained import DETACHED

LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
BATCHES = 16
BATCH_SIZE = 64
LEAST_KEPT = (
    0.01  # share of a layer that a global ranking leaves: an empty layer cuts the network in two
)
ANYWHERE = {"pattern": ("anywhere",)}


def taylor(weight: Tensor, gradient: Tensor) -> Tensor:
    """|w dL/dw| of every weight: to first order, what the loss changes by without it (Molchanov et
    al. 2017).
    """
    return (weight * gradient).abs()


def wanda(weight: Tensor, norms: Tensor) -> Tensor:
    """|w| ||x||_2 with the norm of the input that the weight multiplies (Sun et al. 2024,
    "Wanda").
    """
    return weight.abs() * norms


def keep_highest(scores: Tensor, zeros: int) -> Tensor:
    """Mask in the shape of `scores`, false for exactly `zeros` of the lowest."""
    mask = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[scores.flatten().topk(zeros, largest=False).indices] = False
    return mask.reshape(scores.shape)


def keep_globally(scores: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """A mask per layer that together are false for the share `sparsity` of all weights, those of
    the lowest scores.

    No layer falls below LEAST_KEPT of its weights, which with very small layers can leave the share
    a little short.
    """
    guarded = {
        path: s.masked_fill(keep_highest(s, _most(s)), math.inf) for path, s in scores.items()
    }
    ranked = torch.cat([s.flatten() for s in guarded.values()])
    zeros = min(round(sparsity * len(ranked)), int(torch.isfinite(ranked).sum()))
    flat = torch.split(keep_highest(ranked, zeros), [s.numel() for s in scores.values()])
    return {
        path: part.reshape(s.shape) for part, (path, s) in zip(flat, scores.items(), strict=True)
    }


def keep_two_of_four(scores: Tensor) -> Tensor:
    """Mask of scores (..., 4 m), true for the two highest of every four neighbours in the last
    dimension.
    """
    fours = scores.reshape(*scores.shape[:-1], -1, 4)
    return (
        torch.zeros_like(fours, dtype=torch.bool)
        .scatter_(-1, fours.topk(2, dim=-1).indices, True)
        .flatten(-2)
    )


@dataclass(frozen=True)
class UnstructuredPrune(Stage):
    """Set the least important single weights of linear and convolutional layers to zero, and keep
    them there.

    Anywhere, by rank in the whole model or in each layer (Han et al. 2015), or two in every four
    along the inputs (2:4, Mishra et al. 2021), which sparse tensor cores of NVIDIA GPUs can run
    faster. Importance: magnitude, first-order Taylor |w dL/dw| (Molchanov et al. 2017), or |w|
    times the norm of its input (Wanda, Sun et al. 2024). Layers remember it (`keep_zeros`): later
    training leaves their zeros alone, and their channels may still be cut. What is left of a 2:4
    layer is then made 2:4 again, which costs more weights than cutting channels first.

    When it helps: where files are compressed on their way (zeros zip well; the trace says to what),
    as a regulariser, and with 2:4 on GPUs that have kernels for it. When it does not: speed on
    CPUs, whose runtimes multiply zeros like any other number, and shipped size, because dense
    formats store them all. On convolutional networks Taylor and Wanda lose to magnitude where no
    training follows. Costs: seconds; Taylor and Wanda run over 1,024 training items.
    """

    name: ClassVar[str] = "prune.unstructured"
    effects: ClassVar[Effects] = Effects.of(
        needs=[FLOAT_WEIGHTS, TRAINABLE, DENSE_WEIGHTS], removes=[DENSE_WEIGHTS]
    )

    pattern: str = parameter("anywhere", Choice(("anywhere", "two_of_four")), "where zeros may lie")
    sparsity: float = parameter(
        0.5,
        Real(0.3, 0.95),
        "share of the weights that becomes zero",
        limits=Real(0.001, 0.99),
        when=ANYWHERE,
    )
    scope: str = parameter(
        "global",
        Choice(("global", "per_layer")),
        "rank in the whole model or in each layer",
        when=ANYWHERE,
    )
    importance: str = parameter(
        "magnitude", Choice(("magnitude", "taylor", "wanda")), "what ranks weights"
    )

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        model.to(context.device)
        layers, skipped = self._layers(model)
        scores = self._scores(model, layers, context)
        unreached = (
            DETACHED
            if self.importance == "taylor"
            else "training items do not pass through it as a layer"
        )
        skipped.update(dict.fromkeys((path for path in layers if path not in scores), unreached))
        if not scores:
            reasons = "; ".join(f"{path}: {why}" for path, why in list(skipped.items())[:5])
            raise StageRefused(
                "no linear or convolutional layer has weights that can become zero", hint=reasons
            )
        before = _zipped(layers[path].weight for path in scores)
        new = {
            path: _zero(layers[path], mask) for path, mask in self._masks(layers, scores).items()
        }
        for path in new:
            layers[path].keep_zeros = self.pattern
        touched = tuple(path for path, zeros in new.items() if zeros)
        if not touched:
            raise StageRefused(
                f"none of the weights of {len(new)} layers becomes zero that is not zero already",
                hint="raise the sparsity",
            )
        skipped.update(
            {path: "none of its weights was chosen" for path, zeros in new.items() if not zeros}
        )
        sparsity = {path: float((layers[path].weight == 0).double().mean()) for path in scores}
        zeros, total = (
            sum(f(layers[path].weight) for path in scores) for f in (_zeros, torch.numel)
        )
        details: dict[str, object] = {
            "sparsity": round(zeros / total, 5),
            "layers": {path: round(share, 5) for path, share in sparsity.items()},
            "zipped_weight_bytes": [before, _zipped(layers[path].weight for path in scores)],
        }
        return model, StageTrace(self.name, touched=touched, skipped=skipped, details=details)

    def _layers(self, model: nn.Module) -> tuple[dict[str, Any], dict[str, str]]:
        """Layers whose weights may become zero, and why those of others may not."""
        shared = shared_weights(model)
        layers: dict[str, Any] = {}
        skipped: dict[str, str] = {}
        for path, module in model.named_modules():
            if not isinstance(module, LAYERS):
                continue
            inputs = _inputs_per_group(module)
            if has_derived_weight(module):
                skipped[path] = "its weight is computed from other parameters"
            elif path in shared:
                skipped[path] = f"shares a weight with {', '.join(map(repr, shared[path]))}"
            elif self.pattern == "two_of_four" and inputs % 4:
                skipped[path] = f"each output reads {inputs} inputs, which is no multiple of 4"
            else:
                layers[path] = module
        return layers, skipped

    def _scores(
        self, model: nn.Module, layers: Mapping[str, Any], context: Context
    ) -> dict[str, Tensor]:
        """Importance of every weight by layer, in the weight's shape; layers that data does not
        reach are missing.
        """
        if self.importance == "taylor":
            return taylor_scores(model, layers, context)
        weights = {path: layer.weight.detach() for path, layer in layers.items()}
        if self.importance == "magnitude":
            return {path: w.abs() for path, w in weights.items()}
        norms = input_norms(model, layers, context)
        return {
            path: wanda(weights[path], _like_weight(layers[path], n)) for path, n in norms.items()
        }

    def _masks(
        self, layers: Mapping[str, nn.Module], scores: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        if self.pattern == "two_of_four":
            return {path: _two_of_four(layers[path], s) for path, s in scores.items()}
        if self.scope == "global":
            return keep_globally(scores, self.sparsity)
        return {
            path: keep_highest(s, min(_most(s), round(self.sparsity * s.numel())))
            for path, s in scores.items()
        }


def restore_two_of_four(model: nn.Module) -> dict[str, int]:
    """Make the layers that were pruned to 2:4 so again, in place, after some of their inputs have
    gone and the others have closed up to new fours; how many more weights, the smallest of their
    four, became zero, by layer.

    Raises StageRefused where the number of inputs left is no multiple of four.
    """
    again = {}
    for path, layer in model.named_modules():
        if getattr(layer, "keep_zeros", "") != "two_of_four":
            continue
        if (inputs := _inputs_per_group(layer)) % 4:
            raise StageRefused(
                f"its weights are pruned 2:4, and {inputs} inputs would stay, which is no multiple"
                " of 4",
                layer=path,
                hint=(
                    "cut to other widths (a larger round_to), or cut before the weights are pruned"
                ),
            )
        if zeros := _zero(layer, _two_of_four(layer, layer.weight.detach().abs())):
            again[path] = zeros
    return again


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


def _two_of_four(layer: nn.Module, scores: Tensor) -> Tensor:
    """Mask in the shape of the layer's weight, two in every four along its inputs."""
    dim = 0 if getattr(layer, "transposed", False) else 1
    return keep_two_of_four(scores.movedim(dim, -1)).movedim(-1, dim)


def _like_weight(layer: Any, norms: Tensor) -> Tensor:
    """Norms (inputs,) of a layer's inputs, in a shape that broadcasts to its weight's."""
    places = [1] * (layer.weight.ndim - 2)
    if getattr(layer, "transposed", False):
        return norms.reshape(-1, 1, *places)
    groups = getattr(layer, "groups", 1)
    rows = norms.reshape(groups, -1).repeat_interleave(layer.weight.shape[0] // groups, dim=0)
    return rows.reshape(*rows.shape, *places)


def _inputs_per_group(layer: Any) -> int:
    if isinstance(layer, nn.Linear):
        return layer.in_features
    return int(layer.in_channels // layer.groups)


def _most(scores: Tensor) -> int:
    """Weights of a layer that may become zero."""
    return scores.numel() - math.ceil(LEAST_KEPT * scores.numel())


def _zeros(weight: Tensor) -> int:
    return int((weight == 0).sum())


@torch.no_grad()
def _zero(layer: Any, mask: Tensor) -> int:
    """Zero what the mask leaves out; how many weights became zero."""
    before = _zeros(layer.weight)
    layer.weight.mul_(mask)
    return _zeros(layer.weight) - before


def _zipped(weights: Iterable[Tensor]) -> int:
    """Bytes of the weights after DEFLATE at its fastest level."""
    return sum(
        len(zlib.compress(w.detach().cpu().float().contiguous().numpy().tobytes(), 1))
        for w in weights
    )
