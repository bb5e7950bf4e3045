"""Head pruning: the least important heads of attention layers go, and head counts follow."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter
from petra.methods.prune.head_cut import (
    Bundle,
    all_gated,
    closed_gate,
    cut_heads,
    find_bundles,
    separated,
)
from petra.methods.prune.statistics import gradients_of, smoothed_loss
from petra.methods.prune.zeros import restore_two_of_four
from petra.model.attention.heads import Heads
from petra.model.attention.separate import separate_attention
from petra.model.copies.copying import copy_model
from petra.model.surgery import differentiable, evaluating
from petra.space.domains import Choice, Real
from petra.space.effects import CUT_CHANNELS, FLOAT_WEIGHTS, TRAINABLE, Effects
from petra.tasks.base import Task
from petra.tasks.inputs import Inputs, batch_size, call, map_inputs, named_outputs, predictions

PROBE_ITEMS = 64
TEMPERATURE = 2.0


NO_HEADS = "no attention layer has heads that can be removed"


@contextmanager
def removable(
    model: nn.Module, example: Inputs, generator: torch.Generator
) -> Iterator[tuple[list[Bundle], dict[str, str]]]:
    """Layers whose heads can be removed, all heads within reach meanwhile, and why the others must
    keep theirs.
    """
    put_back, skipped = separated(model, example)
    try:
        bundles, refused = find_bundles(model, example, generator=generator)
        yield bundles, skipped | refused
    finally:
        put_back()


@dataclass(frozen=True)
class HeadPrune(Stage):
    """Remove the least important attention heads, with their slices of all projections and position
    tables.

    Works on separate and fused projections, on grouped-query attention (a key/value head goes with
    its query heads) and on `nn.MultiheadAttention`; the scaling by the head size stays. Every layer
    is proved by a trial cut: without half of its heads it must compute what it computed while the
    output projection was blind to them; what fails is skipped with the reason. Importance: what
    predictions lose without each head (softened KL divergence, or squared distance for regression),
    |dL/d gate| of Michel, Levy & Neubig 2019, or the norm of the head's weights; the last two
    relative to their layer. At least one head stays per layer.

    When it helps: latency and size of transformers, where many heads do little; follow it with
    distillation. When it does not: where the MLPs dominate (cut their width or whole layers
    instead), and on layers with few heads. Costs: a few forward passes per layer for the proof, and
    heads + 1 forward passes over 64 items (output), or 64 passes forward and backward (gradient).
    """

    name: ClassVar[str] = "prune.heads"
    effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS, TRAINABLE], gives=[CUT_CHANNELS])

    ratio: float = parameter(
        0.25, Real(0.05, 0.6), "share of the removable heads that goes", limits=Real(0.001, 0.95)
    )
    importance: str = parameter(
        "gradient", Choice(("output", "gradient", "magnitude")), "what ranks heads"
    )
    spread: str = parameter(
        "global", Choice(("global", "per_layer")), "rank in the whole model or in each layer"
    )

    @classmethod
    def objection(cls, model: nn.Module, task: Task) -> str:
        try:
            with removable(model, task.example(2), torch.Generator().manual_seed(0)) as (
                bundles,
                _,
            ):
                return "" if bundles else NO_HEADS
        except StageRefused as refusal:
            return refusal.message

    @property
    def structure_from_weights(self) -> bool:
        return self.spread != "per_layer"

    def rehearse(self, model: nn.Module, context: Context) -> nn.Module:
        """By the norm of the heads' weights, which takes no data."""
        return replace(self, importance="magnitude").apply(model, context)[0]

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        model.to(context.device).eval()
        example = map_inputs(context.task.example(2), lambda t: t.to(context.device))
        generator = torch.Generator().manual_seed(context.seed_for("trial"))
        with removable(model, example, generator) as (bundles, skipped):
            if not bundles:
                raise StageRefused(NO_HEADS, hint=_summary(skipped))
            scores = self._scores(model, bundles, context)
        sizes = [len(bundle) for bundle in bundles]
        chosen = choose(scores, sizes, ratio=self.ratio, spread=self.spread)
        if not any(chosen):
            raise StageRefused(
                f"a ratio of {self.ratio:g} rounds to no head at all",
                hint="raise the ratio; removable heads: "
                + ", ".join(f"{b[0].path} {b[0].units}" for b in bundles[:8]),
            )
        cuts = [
            (h, units)
            for bundle, units in zip(bundles, chosen, strict=True)
            for h in bundle
            if units
        ]
        separate_attention(model, only=[heads.path for heads, _ in cuts])
        wrong, _ = cut_heads(model, cuts, example)
        if wrong:
            raise StageRefused(f"the heads cannot be removed together: {wrong}")
        again = restore_two_of_four(model)
        return model, self._trace(bundles, cuts, skipped, again)

    def _scores(
        self, model: nn.Module, bundles: Sequence[Bundle], context: Context
    ) -> list[Tensor]:
        """(units,) importance of every bundle's units, per layer of the bundle."""
        if self.importance == "magnitude":
            return [
                relative(torch.stack([magnitude(model, h) for h in b]).mean(0)) for b in bundles
            ]
        inputs, target = next(
            context.task.train.batches(PROBE_ITEMS, seed=context.seed_for("probe"))
        )
        inputs, target = (
            map_inputs(inputs, lambda t: t[:PROBE_ITEMS].to(context.device)),
            target[:PROBE_ITEMS],
        )
        if self.importance == "output":
            return distances(model, bundles, inputs, context)
        found = gate_gradients(model, bundles, inputs, target.to(context.device), context.task)
        return [relative(scores) for scores in found]

    def _trace(
        self,
        bundles: Sequence[Bundle],
        cuts: Sequence[tuple[Heads, list[int]]],
        skipped: Mapping[str, str],
        again: Mapping[str, int],
    ) -> StageTrace:
        layers = [heads for bundle in bundles for heads in bundle]
        removed = {heads.path: units for heads, units in cuts}
        total = sum(h.units * h.shared for h in layers)
        gone = sum(len(units) * h.shared for h, units in cuts)
        details: dict[str, object] = {
            "heads": {
                h.path: [h.units * h.shared, (h.units - len(units)) * h.shared] for h, units in cuts
            },
            "removed": removed,
            "removable_heads": total,
            "removed_heads": gone,
            "achieved_ratio": round(gone / total, 4),
        }
        if again:
            details["two_of_four_again"] = dict(again)
        unchosen = {h.path: "none of its heads was chosen" for h in layers if h.path not in removed}
        return StageTrace(
            self.name, touched=tuple(removed), skipped={**skipped, **unchosen}, details=details
        )


def choose(
    scores: Sequence[Tensor], sizes: Sequence[int], *, ratio: float, spread: str
) -> list[list[int]]:
    """Units to remove of every bundle, the lowest scores first and at least one staying.

    A unit of bundle b counts `sizes[b]` times. per_layer: the nearest whole number to the ratio in
    each. global: while the ratio of all is not exceeded, the next lowest that fits.
    """
    removed: list[list[int]] = [[] for _ in scores]
    if spread == "per_layer":
        for units, s in zip(removed, scores, strict=True):
            count = min(int(ratio * len(s) + 0.5), len(s) - 1)
            units += sorted(torch.argsort(s, stable=True)[:count].tolist())
        return removed
    left = int(ratio * sum(len(s) * size for s, size in zip(scores, sizes, strict=True)) + 0.5)
    for _, b, unit in sorted(
        (float(v), b, i) for b, s in enumerate(scores) for i, v in enumerate(s)
    ):
        if sizes[b] <= left and len(removed[b]) < len(scores[b]) - 1:
            removed[b].append(unit)
            left -= sizes[b]
    return [sorted(units) for units in removed]


def relative(scores: Tensor) -> Tensor:
    """Scores over their layer's l2 norm (Michel et al. 2019, section 2.3), so that layers
    compare.
    """
    shares: Tensor = scores / scores.norm().clamp_min(torch.finfo(scores.dtype).tiny)
    return shares


def magnitude(model: nn.Module, heads: Heads) -> Tensor:
    """(units,) l2 norm of all entries that go with a unit."""
    squares = torch.zeros(heads.units, dtype=torch.float64)
    for part in heads.parts:
        module = model.get_submodule(part.layer)
        tensor = {**module._parameters, **module._buffers}[part.name]
        assert tensor is not None
        for unit in range(heads.units):
            index = torch.tensor(part.entries(heads.units, [unit]), device=tensor.device)
            squares[unit] += (
                tensor.detach().index_select(part.dim, index).double().square().sum().cpu()
            )
    return squares.sqrt()


@torch.no_grad()
def distances(
    model: nn.Module, bundles: Sequence[Bundle], inputs: Inputs, context: Context
) -> list[Tensor]:
    """(units,) distance of the predictions without a unit to the untouched model's, per layer of
    the bundle.
    """
    # A copy: what comes next, stages and candidates, gets the teacher where it was.
    teacher = copy_model(context.teacher).to(context.device).eval()
    reference = predictions(call(teacher, inputs))
    apart = context.task.distance().having({"temperature": TEMPERATURE})
    total = sum(bundle[0].units for bundle in bundles)
    done = itertools.count(1)
    found = []
    for bundle in bundles:
        scores = torch.empty(bundle[0].units)
        for unit in range(bundle[0].units):
            with all_gated(model, bundle, [closed_gate(heads, [unit]) for heads in bundle]):
                without = predictions(call(model, inputs))
            distance = float(apart(without, reference))
            scores[unit] = distance / len(bundle) if math.isfinite(distance) else math.inf
            context.progress(next(done), total, bundle[0].path)
        found.append(scores)
    return found


def gate_gradients(
    model: nn.Module, bundles: Sequence[Bundle], inputs: Inputs, target: Tensor, task: Task
) -> list[Tensor]:
    """(units,) I_h = E_x |dL(x) / d xi_h| with gates xi = 1 on the heads' outputs (Michel et al.
    2019, equation 3).

    One item at a time, since gradients of different items cancel; a bundle's unit is the mean over
    its layers.
    """
    layers = [heads for bundle in bundles for heads in bundle]
    totals = [torch.zeros(heads.units) for heads in layers]
    items, own = batch_size(inputs), smoothed_loss(task)
    with evaluating(model), differentiable(model):
        for i in range(items):
            gates = [torch.ones(heads.units, requires_grad=True) for heads in layers]
            with all_gated(model, layers, gates):
                item = map_inputs(inputs, lambda t, i=i: t[i : i + 1])  # type: ignore[misc]
                outputs = named_outputs(call(model, item))
            loss = own(outputs, target[i : i + 1])
            for layer, total, gradient in zip(
                layers, totals, gradients_of(loss, gates), strict=True
            ):
                if gradient is None:
                    raise StageRefused(
                        "no gradient reaches its heads from the output that the task judges",
                        layer=layer.path,
                        hint="rank heads by output or magnitude",
                    )
                total += gradient.abs() / items
    rest = iter(totals)
    return [torch.stack(list(itertools.islice(rest, len(bundle)))).mean(0) for bundle in bundles]


def _summary(reasons: Mapping[str, str]) -> str:
    """The commonest reasons, with one layer each."""
    first: dict[str, str] = {}
    for path, reason in reasons.items():
        first.setdefault(reason, path)
    shown = [f"{path!r}: {reason}" for reason, path in list(first.items())[:3]]
    return "; ".join(shown) or "no module has an attribute for the number or the size of its heads"
