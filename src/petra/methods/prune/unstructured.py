"""Unstructured pruning: single weights become zero, and stay zero through later training."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter
from petra.methods.prune.weight_scores import input_norms, taylor_scores
from petra.methods.prune.zeros import (
    count_zeros,
    inputs_per_group,
    keep_globally,
    keep_highest,
    most_zeros,
    two_of_four_mask,
    wanda,
    zero_out,
)
from petra.model.kinds import WEIGHTED
from petra.model.surgery import has_derived_weight, shared_weights
from petra.space.domains import Choice, Real
from petra.space.effects import DENSE_WEIGHTS, FLOAT_WEIGHTS, TRAINABLE, Effects
from petra.training.untrained import DETACHED

ANYWHERE = {"pattern": ("anywhere",)}


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

    @property
    def structure_from_weights(self) -> bool:
        return False

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
            path: zero_out(layers[path], mask) for path, mask in self._masks(layers, scores).items()
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
            sum(f(layers[path].weight) for path in scores) for f in (count_zeros, torch.numel)
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
            if not isinstance(module, WEIGHTED):
                continue
            inputs = inputs_per_group(module)
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
            return {path: two_of_four_mask(layers[path], s) for path, s in scores.items()}
        if self.scope == "global":
            return keep_globally(scores, self.sparsity)
        return {
            path: keep_highest(s, min(most_zeros(s), round(self.sparsity * s.numel())))
            for path, s in scores.items()
        }


def _like_weight(layer: Any, norms: Tensor) -> Tensor:
    """Norms (inputs,) of a layer's inputs, in a shape that broadcasts to its weight's."""
    places = [1] * (layer.weight.ndim - 2)
    if getattr(layer, "transposed", False):
        return norms.reshape(-1, 1, *places)
    groups = getattr(layer, "groups", 1)
    rows = norms.reshape(groups, -1).repeat_interleave(layer.weight.shape[0] // groups, dim=0)
    return rows.reshape(*rows.shape, *places)


def _zipped(weights: Iterable[Tensor]) -> int:
    """Bytes of the weights after DEFLATE at its fastest level."""
    return sum(
        len(zlib.compress(w.detach().cpu().float().contiguous().numpy().tobytes(), 1))
        for w in weights
    )
