"""Depth pruning: whole residual blocks and transformer layers go, chosen by what the output loses
without them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter
from petra.methods.prune.stand_ins import stand_ins
from petra.model.channels.breakage import BREAKAGE, breakage_in_words
from petra.model.copies.copying import copy_model
from petra.model.surgery import (
    count_parameters,
    layer_shapes,
    replace_module,
)
from petra.space.declare import FromModel
from petra.space.domains import Choice, Integer
from petra.space.effects import FLOAT_WEIGHTS, TRAINABLE, Effects
from petra.space.outline import ModelOutline
from petra.tasks.base import Task
from petra.tasks.inputs import Inputs, call, map_inputs, predictions

PROBE_ITEMS = 256
TEMPERATURE = 2.0
MOST = Integer(1, 50, log=True)


def _up_to_half(model: ModelOutline) -> Integer:
    """Of the repeated blocks, few more often than many."""
    return Integer(1, min(max(len(model.blocks) // 2, 1), MOST.high), log=True)


@dataclass(frozen=True)
class DepthPrune(Stage):
    """Remove whole blocks or transformer layers whose input and output have one shape, the least
    missed first.

    Greedy: blocks are left out in turn, the distance of the model's predictions to the untouched
    one's is measured on training items (softened KL divergence, or squared distance for
    regression), and the block with the smallest distance, or the smallest per activation or weight
    saved, goes (compare Chen & Zhao 2018, Shortened LLaMA 2024). After that only blocks that may be
    the next are measured again: none is taken to be missed less for others having gone (lazy
    greedy, Minoux 1978).

    When it helps: latency, more than the same share of channels does, because every kernel of the
    block disappears; deep residual networks and transformers; follow it with distillation. When it
    does not: shallow or plain networks, where every block changes the representation, and layers
    that share their weights. Costs: a forward pass over 256 items for every block of the model, and
    some for every block that goes.
    """

    name: ClassVar[str] = "prune.depth"
    effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS, TRAINABLE])

    blocks: int = parameter(
        1, FromModel(_up_to_half, MOST), "how many blocks go", limits=Integer(1, 1000)
    )
    per: str = parameter(
        "activation",
        Choice(("block", "activation", "weight")),
        "distance counted per block, per activation element saved (latency), or per weight saved"
        " (size)",
    )

    @classmethod
    def objection(cls, model: nn.Module, task: Task) -> str:
        candidates, skipped = stand_ins(model, task.example(2))
        return "" if len(candidates) > 1 else _one_must_stay(candidates, skipped)

    def rehearse(self, model: nn.Module, context: Context) -> nn.Module:
        """Without its last blocks, those that it runs without, whichever will be missed least."""
        example = context.task.example(2)
        candidates, _ = self._candidates(model.eval(), example)
        gone = 0
        for path, stand_in in reversed(candidates.items()):
            block = model.get_submodule(path)
            replace_module(model, path, stand_in)
            try:
                call(model, example)
            except BREAKAGE:
                replace_module(model, path, block)
                continue
            gone += 1
            if gone == self.blocks:
                return model
        raise StageRefused(f"the model does not run without {self.blocks} of its blocks")

    def _candidates(
        self, model: nn.Module, example: Inputs
    ) -> tuple[dict[str, nn.Module], dict[str, str]]:
        """`stand_ins`; raises StageRefused where there are too few."""
        candidates, skipped = stand_ins(model, example)
        if len(candidates) <= self.blocks:
            raise StageRefused(
                f"the model has {len(candidates)} blocks that keep their input's shape,"
                f" {self.blocks} are to go",
                hint=_one_must_stay(candidates, skipped),
            )
        return candidates, skipped

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        model.to(context.device).eval()
        inputs = map_inputs(
            next(context.task.train.batches(PROBE_ITEMS, seed=context.seed_for("probe")))[0],
            lambda t: t.to(context.device),
        )
        candidates, skipped = self._candidates(model, map_inputs(inputs, lambda t: t[:2]))
        saved = dict.fromkeys(candidates, 1)
        if self.per == "activation":
            saved = _activations(model, inputs, candidates)
        elif self.per == "weight":
            saved = {path: count_parameters(model.get_submodule(path)) for path in candidates}
        missed = _Missed(model, inputs, candidates, context)
        removed: dict[str, float] = {}
        for step in range(self.blocks):
            context.progress(step, self.blocks, "choosing blocks")
            path = missed.least(saved)
            removed[path] = missed.distances.pop(path)
            replace_module(model, path, candidates[path])
        skipped |= missed.broken
        kept = {p: "the model misses it more" for p in candidates if p not in removed}
        details = {"distance": {p: float(f"{d:.4g}") for p, d in removed.items()}}
        return model, StageTrace(
            self.name, touched=tuple(removed), skipped={**kept, **skipped}, details=details
        )


class _Missed:
    """How far predictions are from the untouched model's without each block that is still there:
    `distances` as they were last measured. `broken` says why some blocks cannot go.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        stand_ins: Mapping[str, nn.Module],
        context: Context,
    ) -> None:
        self.model, self.inputs, self.stand_ins = model, inputs, stand_ins
        with torch.no_grad():
            # A copy: what comes next, stages and candidates, gets the teacher where it was.
            teacher = copy_model(context.teacher).to(context.device).eval()
            self._reference = predictions(call(teacher, inputs))
        self._apart = context.task.distance().having({"temperature": TEMPERATURE})
        self.distances = dict.fromkeys(stand_ins, 0.0)
        self.broken: dict[str, str] = {}

    def least(self, saved: Mapping[str, int]) -> str:
        """The block that is missed least for what its absence saves, of the model as it is now."""
        measured: set[str] = set()
        while self.distances:
            path = min(self.distances, key=lambda p: (self.distances[p] / saved[p], p))
            if path in measured:
                return path
            self._measure(path)
            measured.add(path)
        raise StageRefused(
            "the model does not run without any of its blocks",
            hint="; ".join(list(self.broken.values())[:3]),
        )

    @torch.no_grad()
    def _measure(self, path: str) -> None:
        block = self.model.get_submodule(path)
        replace_module(self.model, path, self.stand_ins[path])
        try:
            without = predictions(call(self.model, self.inputs))
        except BREAKAGE as error:
            self.broken[path] = f"without it the model no longer runs ({breakage_in_words(error)})"
            del self.distances[path]
            return
        finally:
            replace_module(self.model, path, block)
        distance = float(self._apart(without, self._reference))
        self.distances[path] = distance if math.isfinite(distance) else math.inf


def _one_must_stay(candidates: Iterable[str], skipped: Mapping[str, str]) -> str:
    found = ", ".join(candidates) or "there is none"
    others = "".join(f"; {path} is {why}" for path, why in list(skipped.items())[:3])
    return f"at least one block that keeps its input's shape must stay: {found}{others}"


def _activations(
    model: nn.Module, inputs: Inputs, candidates: Mapping[str, nn.Module]
) -> dict[str, int]:
    """Elements written by the leaf layers inside each block."""
    shapes = layer_shapes(model, lambda m: call(m, inputs))
    return {
        p: max(
            1,
            sum(
                out.numel()
                for path, calls in shapes.items()
                if path.startswith(f"{p}.")
                for _, out in calls
            ),
        )
        for p in candidates
    }
