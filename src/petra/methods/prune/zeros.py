"""Which single weights become zero: scores, masks, and the 2:4 pattern."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused

# Share of a layer that a global ranking leaves: an empty layer cuts the network in two.
LEAST_KEPT = 0.01


def taylor(weight: Tensor, gradient: Tensor) -> Tensor:
    """|w dL/dw| of every weight: what the loss changes by without it (Molchanov et al. 2017)."""
    return (weight * gradient).abs()


def wanda(weight: Tensor, norms: Tensor) -> Tensor:
    """|w| ||x||_2 with the norm of the weight's input (Sun et al. 2024, "Wanda")."""
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
        path: s.masked_fill(keep_highest(s, most_zeros(s)), math.inf) for path, s in scores.items()
    }
    ranked = torch.cat([s.flatten() for s in guarded.values()])
    zeros = min(round(sparsity * len(ranked)), int(torch.isfinite(ranked).sum()))
    flat = torch.split(keep_highest(ranked, zeros), [s.numel() for s in scores.values()])
    return {
        path: part.reshape(s.shape) for part, (path, s) in zip(flat, scores.items(), strict=True)
    }


def keep_two_of_four(scores: Tensor) -> Tensor:
    """Mask of scores (..., 4 m), true for the two highest of every four in the last dimension."""
    fours = scores.reshape(*scores.shape[:-1], -1, 4)
    return (
        torch.zeros_like(fours, dtype=torch.bool)
        .scatter_(-1, fours.topk(2, dim=-1).indices, True)
        .flatten(-2)
    )


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
        if (inputs := inputs_per_group(layer)) % 4:
            raise StageRefused(
                f"its weights are pruned 2:4, and {inputs} inputs would stay, which is no multiple"
                " of 4",
                layer=path,
                hint=(
                    "cut to other widths (a larger round_to), or cut before the weights are pruned"
                ),
            )
        if zeros := zero_out(layer, two_of_four_mask(layer, layer.weight.detach().abs())):
            again[path] = zeros
    return again


def two_of_four_mask(layer: nn.Module, scores: Tensor) -> Tensor:
    """Mask in the shape of the layer's weight, two in every four along its inputs."""
    dim = 0 if getattr(layer, "transposed", False) else 1
    return keep_two_of_four(scores.movedim(dim, -1)).movedim(-1, dim)


def inputs_per_group(layer: Any) -> int:
    if isinstance(layer, nn.Linear):
        return layer.in_features
    return int(layer.in_channels // layer.groups)


def most_zeros(scores: Tensor) -> int:
    """Weights of a layer that may become zero."""
    return scores.numel() - math.ceil(LEAST_KEPT * scores.numel())


def count_zeros(weight: Tensor) -> int:
    return int((weight == 0).sum())


@torch.no_grad()
def zero_out(layer: Any, mask: Tensor) -> int:
    """Zero what the mask leaves out; how many weights became zero."""
    before = count_zeros(layer.weight)
    layer.weight.mul_(mask)
    return count_zeros(layer.weight) - before
