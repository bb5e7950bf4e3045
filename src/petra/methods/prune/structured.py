"""Structured pruning: whole channels go, and with them everything that reads or mirrors them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter
from petra.methods.effect import check_effect, held_elsewhere, own_parameters
from petra.methods.prune.allocate import (
    Candidate,
    block_of,
    keep_global,
    keep_per_block,
    keep_per_layer,
    lowest,
)
from petra.methods.prune.importance import NORMALISATIONS, REDUCTIONS
from petra.methods.prune.narrowed import check_outputs, cut_trace, in_words, removed_share
from petra.methods.prune.scores import IMPORTANCES, Ranking, score
from petra.methods.prune.statistics import gather
from petra.methods.prune.zeros import restore_two_of_four
from petra.methods.training import LR, OPTIMIZER, run_fit
from petra.model.channels.cut import cut
from petra.model.channels.graph import ChannelGraph
from petra.model.channels.groups import ChannelGroup, find_groups, regroup
from petra.model.copies.copying import copy_model
from petra.model.surgery import differentiable
from petra.space.declare import has, where
from petra.space.domains import Choice, Integer, Real
from petra.space.effects import CUT_CHANNELS, FLOAT_WEIGHTS, TRAINABLE, Effects
from petra.tasks.base import Task
from petra.tasks.inputs import Inputs, map_inputs
from petra.training.loop import TrainConfig

NOTHING = "no layer has channels that can be removed"
ITERATIVE = {"schedule": ("iterative",)}
MEASURED = tuple(kind for kind in IMPORTANCES if kind != "random")
# LAMP compares layers as it is, and only as it is.
SCALED = tuple(kind for kind in MEASURED if kind != "lamp")


@dataclass(frozen=True)
class StructuredPrune(Stage):
    """Remove the least important channels of linear and convolutional layers, and narrow all layers
    coupled to them.

    Coupled channels are found with Torch-Pruning's dependency graph (Fang et al. 2023) and every
    group is proved by a trial cut first; what cannot be cut without changing the function of the
    other channels is skipped with the reason (residual streams with zero-padded shortcuts,
    hard-coded views, LayerNorm widths, attention heads). Output layers and the model's inputs keep
    their widths. Importance: filter norm (Li et al. 2017), BatchNorm gain (Liu et al. 2017),
    first-order Taylor (Molchanov et al. 2019), second-order with the empirical Fisher as curvature
    (LeCun et al. 1990), LAMP (Lee et al. 2021; comparable between layers, so never normalised),
    distance to the geometric median (He et al. 2019), entropy of what a channel says (Luo & Wu
    2017), random; the group kinds also count the weights that read a channel and its norms (Fang et
    al. 2023).

    When it helps: latency and size on any runtime, no special kernels needed; follow it with tuning
    or distillation. Taylor, Hessian and entropy need data, and depend on which; a training split
    learnt by heart makes the gradients noisy. When it does not: on thin layers (16 channels hold
    little to spare), and with odd widths (`round_to` 1), which many kernels pad back up. Costs:
    seconds, with gradients those of 16 training batches (32 small ones for the Hessian) per cut,
    plus `epochs_between` per cut but the last when iterative.
    """

    name: ClassVar[str] = "prune.structured"
    effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS, TRAINABLE], gives=[CUT_CHANNELS])

    importance: str = parameter(
        "magnitude",
        where(has("batch norm"), Choice(IMPORTANCES), "bn_scale"),
        "what ranks channels",
        limits=Choice(IMPORTANCES),
    )
    p: int = parameter(
        2,
        Choice((0, 1, 2)),
        "norm of the weights",
        when={"importance": ("magnitude", "group_magnitude")},
    )
    reduction: str = parameter(
        "mean",
        Choice(REDUCTIONS),
        "how scores of coupled layers become one",
        when={"importance": MEASURED},
    )
    spread: str = parameter(
        "global",
        Choice(("global", "per_block", "per_layer")),
        "rank in the whole model, in each block (outermost repeated module: a stage, a transformer"
        " layer) or layer",
    )
    normalisation: str = parameter(
        "mean",
        Choice(NORMALISATIONS),
        "what scores are made relative to before layers are compared",
        when={"importance": SCALED, "spread": ("global", "per_block")},
    )
    ratio: float = parameter(
        0.3, Real(0.05, 0.95), "share of the prunable channels that goes", limits=Real(0.001, 0.95)
    )
    round_to: int = parameter(
        8, Choice((1, 4, 8, 16)), "widths that are cut become multiples of this"
    )
    schedule: str = parameter(
        "one_shot", Choice(("one_shot", "iterative")), "one cut, or several with tuning between"
    )
    steps: int = parameter(3, Integer(2, 5), "cuts", limits=Integer(2, 50), when=ITERATIVE)
    epochs_between: int = parameter(
        1,
        Integer(1, 3),
        "epochs of tuning between two cuts",
        limits=Integer(0, 1000),
        when=ITERATIVE,
    )
    optimizer: str = parameter(
        "sgd", OPTIMIZER, "optimizer between cuts", scope="optimizer", when=ITERATIVE
    )
    lr: float = parameter(
        0.01,
        Real(1e-4, 0.1, log=True),
        "peak learning rate between cuts",
        limits=LR,
        when=ITERATIVE,
    )

    @property
    def structure_from_weights(self) -> bool:
        return self.spread != "per_layer"

    def training_epochs(self) -> int:
        return (self.steps - 1) * self.epochs_between if self.schedule == "iterative" else 0

    def untrained(self) -> StructuredPrune:
        """The same cuts, of weights that are not tuned in between."""
        return replace(self, epochs_between=0) if self.training_epochs() else self

    @classmethod
    def objection(cls, model: nn.Module, task: Task) -> str:
        generator = torch.Generator().manual_seed(0)
        try:
            groups, kept = find_groups(model, task.example(2), generator=generator, enough=1)
        except StageRefused as refusal:
            return refusal.message
        return "" if groups else f"{NOTHING} ({_reasons(model, kept)})"

    def rehearse(self, model: nn.Module, context: Context) -> nn.Module:
        """At once, instead of in several steps."""
        return replace(self, schedule="one_shot").apply(model, context)[0]

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        model.to(context.device)
        example = map_inputs(context.task.example(2), lambda t: t.to(context.device))
        generator = torch.Generator().manual_seed(context.seed_for(self.name, "trial"))
        groups, kept = find_groups(model, example, generator=generator)
        groups, unranked = self._rankable(model, example, groups)
        kept.update(unranked)
        if not groups:
            raise StageRefused(NOTHING, hint=_reasons(model, kept))

        pruned = copy_model(model)
        cuts = self.steps if self.schedule == "iterative" else 1
        original = {g.root: [len(s) for s in g.segments] for g in groups}
        failed: dict[str, str] = {}
        history: list[dict[str, object]] = []
        for step in range(cuts):
            active = [g for g in groups if g.root not in failed]
            record, wrong = self._cut(
                pruned, active, original, self.ratio * (step + 1) / cuts, example, context
            )
            failed.update(wrong)
            if step + 1 < cuts and self.epochs_between and record["removed_channels"]:
                config = TrainConfig(
                    epochs=self.epochs_between, lr=self.lr, optimizer=self.optimizer
                )
                pruned, tuned = run_fit(
                    f"{self.name} after cut {step + 1}", pruned, config, context
                )
                record["tuning"] = tuned.details
            history.append(record)
        check_outputs(model, pruned, example, groups)
        trace = cut_trace(self.name, model, pruned, groups, kept, failed, history)
        if not trace.touched and failed:
            layer, reason = next(iter(failed.items()))
            raise StageRefused(f"cannot remove channels: {reason}", layer=layer)
        if not trace.touched:
            raise StageRefused(
                f"a ratio of {self.ratio:g} rounds to no channel at all at round_to"
                f" {self.round_to}",
                hint="raise the ratio or lower round_to; prunable widths: "
                + ", ".join(f"{g.root} {len(g.units) * g.unit_size}" for g in groups[:8]),
            )
        check_effect(
            "removes", removed_share(model, pruned, example), "model", asked=self.ratio,
            rest=held_elsewhere(model, trace.touched, trace.skipped),
        )  # fmt: skip
        return pruned, trace

    def _rankable(
        self, model: nn.Module, example: Inputs, groups: list[ChannelGroup]
    ) -> tuple[list[ChannelGroup], dict[str, str]]:
        """Groups that the importance can measure, and the layers of the others with why."""
        if self.importance != "bn_scale" or not groups:
            return groups, {}
        with differentiable(model):
            graph = ChannelGraph(model, example)
            measured = [g for g in groups if len(score(graph, g, Ranking(self.importance)))]
        reason = "no BatchNorm with a gain to rank its channels by"
        return measured, {path: reason for g in groups if g not in measured for path in g.layers}

    def _cut(
        self,
        model: nn.Module,
        groups: Sequence[ChannelGroup],
        original: Mapping[str, Sequence[int]],
        ratio: float,
        example: Inputs,
        context: Context,
    ) -> tuple[dict[str, object], dict[str, str]]:
        """Bring the share of removed channels up to `ratio`; a record, and reasons by root.

        `original` are the units that each group's segments had to begin with. A group that cannot
        be cut together with those before it stays as it is, and the reason says why.
        """
        removed = 0
        with differentiable(model):
            ranking, items = self._ranking(model, ratio, context)
            graph = ChannelGraph(model, example)
            present, failed = regroup(graph, groups)
            scores = {g: score(graph, g, ranking) for g in present}
            unmeasured = f"nothing in it that {self.importance} could measure"
            failed |= {g.root: unmeasured for g in scores if not len(scores[g])}
            groups = [g for g in scores if g.root not in failed]
            segments = [
                (g, part, n)
                for g in groups
                for part, n in zip(g.segments, original[g.root], strict=True)
            ]
            candidates = [
                Candidate(scores[g][list(part)], n, g.unit_size) for g, part, n in segments
            ]
            widths = self._widths(model, [g.root for g, _, _ in segments], candidates, ratio)
            chosen: dict[ChannelGroup, list[int]] = {g: [] for g in groups}
            for (group, part, _), candidate, width in zip(
                segments, candidates, widths, strict=True
            ):
                units = [part[u] for u in lowest(candidate.scores, candidate.remaining - width)]
                chosen[group] += [channel for u in units for channel in group.units[u]]
            for group, channels in chosen.items():
                if not channels:
                    continue
                if wrong := cut(graph, group.root, channels, example):
                    failed[group.root] = wrong
                else:
                    removed += len(channels)
        record: dict[str, object] = {"ratio": round(ratio, 4), "removed_channels": removed}
        if again := restore_two_of_four(model):
            record["two_of_four_again"] = again
        return record | ({"calibration_items": items} if items else {}), failed

    def _ranking(self, model: nn.Module, ratio: float, context: Context) -> tuple[Ranking, int]:
        """How channels are ranked for one cut, and how many training items it rests on."""
        seed = context.seed_for(self.name, self.importance)
        evidence, items = gather(
            self.importance, model, context.task, seed=seed, device=context.device
        )
        generator = torch.Generator().manual_seed(
            context.seed_for(self.name, "random", f"{ratio:g}")
        )
        p = float(self.p)
        normalisation = "none" if self.importance == "lamp" else self.normalisation
        return (
            Ranking(self.importance, p, self.reduction, normalisation, evidence, generator),
            items,
        )

    def _widths(
        self, model: nn.Module, roots: Sequence[str], candidates: Sequence[Candidate], ratio: float
    ) -> list[int]:
        """Units that each candidate keeps; `roots` are the layers that number their channels."""
        if self.spread == "per_layer":
            return keep_per_layer(candidates, ratio=ratio, round_to=self.round_to)
        if self.spread == "per_block":
            modules = dict(model.named_modules())
            blocks = [block_of(root, modules) for root in roots]
            return keep_per_block(candidates, blocks, ratio=ratio, round_to=self.round_to)
        return keep_global(candidates, ratio=ratio, round_to=self.round_to)


def _reasons(model: nn.Module, kept: Mapping[str, str]) -> str:
    """Why no layer can be cut, in words."""
    return in_words({**kept, **own_parameters(model, kept)})
