"""Depth pruning: whole residual blocks go, chosen by what the model's output loses without them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter
from petra.model.surgery import MIXING_LAYERS, evaluating, layer_shapes, replace_module
from petra.space.domains import Choice, Integer
from petra.space.effects import FLOAT_WEIGHTS, TRAINABLE, Effects
from petra.tasks.inputs import Inputs, call, map_inputs, prediction

PROBE_ITEMS = 256
TEMPERATURE = 2.0


def droppable_blocks(model: nn.Module, example: Inputs) -> tuple[str, ...]:
    """Innermost modules with weights, made of other modules, whose one tensor input has the shape of their output.

    Such a block can be replaced by the identity. Called exactly once per forward pass, so that what is measured is what
    is removed. Cost: one forward pass.
    """
    calls: dict[str, list[bool]] = {}

    def record(path: str) -> object:
        def hook(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            same = (
                len(inputs) == 1
                and isinstance(inputs[0], Tensor)
                and isinstance(output, Tensor)
                and inputs[0].shape == output.shape
            )
            calls.setdefault(path, []).append(same)

        return hook

    composite = {path: m for path, m in model.named_modules() if path and m._modules}
    hooks = [m.register_forward_hook(record(path)) for path, m in composite.items()]
    try:
        with evaluating(model), torch.no_grad():
            call(model, example)
    finally:
        for handle in hooks:
            handle.remove()
    fit = [
        path
        for path, same in calls.items()
        if same == [True] and any(isinstance(m, MIXING_LAYERS) for m in composite[path].modules())
    ]
    return tuple(p for p in composite if p in fit and not any(q.startswith(f"{p}.") for q in fit))


@dataclass(frozen=True)
class DepthPrune(Stage):
    """Remove whole blocks whose input and output have one shape, the least missed first.

    Greedy: every remaining block is left out in turn, the distance of the model's predictions to those with it is
    measured on training items (softened KL divergence, or squared distance for regression), and the block with the
    smallest distance, or the smallest per activation saved, goes (compare Chen & Zhao 2018, Shortened LLaMA 2024).

    When it helps: latency, more than the same share of channels does, because every kernel of the block disappears;
    deep residual networks and transformers; follow it with distillation. When it does not: shallow or plain networks,
    where every block changes the representation. Costs: blocks x removals forward passes over 256 items.
    """

    name: ClassVar[str] = "prune.depth"
    effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS, TRAINABLE])

    blocks: int = parameter(1, Integer(1, 4), "how many blocks go", limits=Integer(1, 1000))
    per: str = parameter(
        "activation", Choice(("block", "activation")), "distance counted per block or per activation element saved"
    )

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        model.to(context.device).eval()
        inputs = map_inputs(
            next(context.task.train.batches(PROBE_ITEMS, seed=context.seed_for("probe")))[0],
            lambda t: t.to(context.device),
        )
        candidates = droppable_blocks(model, inputs)
        if len(candidates) <= self.blocks:
            raise StageRefused(
                f"the model has {len(candidates)} blocks that keep their input's shape, {self.blocks} are to go",
                hint="at least one such block must stay: " + (", ".join(candidates) or "there is none"),
            )
        saved = _activations(model, inputs, candidates) if self.per == "activation" else dict.fromkeys(candidates, 1)
        removed: dict[str, float] = {}
        for step in range(self.blocks):
            context.progress(step, self.blocks, "choosing blocks")
            distances = {
                p: d for p, d in self._distances(model, inputs, candidates, context).items() if p not in removed
            }
            path = min(distances, key=lambda p: (distances[p] / saved[p], p))
            removed[path] = distances[path]
            replace_module(model, path, nn.Identity())
        kept = {p: "the model misses it more" for p in candidates if p not in removed}
        details = {"distance": {p: float(f"{d:.4g}") for p, d in removed.items()}}
        return model, StageTrace(self.name, touched=tuple(removed), skipped=kept, details=details)

    @torch.no_grad()
    def _distances(
        self, model: nn.Module, inputs: Inputs, candidates: tuple[str, ...], context: Context
    ) -> Mapping[str, float]:
        """Distance of the predictions without each block to the untouched model's."""
        reference = prediction(call(context.teacher.to(context.device).eval(), inputs)).float()
        found = {}
        for path in candidates:
            block = model.get_submodule(path)
            replace_module(model, path, nn.Identity())
            try:
                without = prediction(call(model, inputs)).float()
            finally:
                replace_module(model, path, block)
            distance = float(context.task.distillation(without, reference, temperature=TEMPERATURE))
            found[path] = distance if math.isfinite(distance) else math.inf
        return found


def _activations(model: nn.Module, inputs: Inputs, candidates: tuple[str, ...]) -> dict[str, int]:
    """Elements written by the leaf layers inside each block."""
    shapes = layer_shapes(model, lambda m: call(m, inputs))
    return {
        p: max(1, sum(out.numel() for path, calls in shapes.items() if path.startswith(f"{p}.") for _, out in calls))
        for p in candidates
    }
