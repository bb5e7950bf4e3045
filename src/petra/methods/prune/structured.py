"""Structured pruning: whole channels go, and with them everything that reads or mirrors them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter
from petra.methods.prune import importance as measures
from petra.methods.prune.allocate import Candidate, keep_global, keep_per_layer, lowest
from petra.methods.prune.cut import cut
from petra.methods.prune.graph import BREAKAGE, WEIGHTED, ChannelGraph, channel_dim
from petra.methods.prune.groups import ChannelGroup, find_groups, regroup, score
from petra.methods.training import LR, OPTIMIZER, run_fit
from petra.model.surgery import differentiable, evaluating
from petra.space.domains import Choice, Integer, Real
from petra.space.effects import CUT_CHANNELS, FLOAT_WEIGHTS, TRAINABLE, Effects
from petra.tasks.base import Task
from petra.tasks.inputs import Inputs, call, map_inputs, named_outputs, prediction
from petra.training.loop import TrainConfig

TAYLOR_BATCHES = 16
TAYLOR_BATCH_SIZE = 64
TAYLOR_SMOOTHING = 0.1  # items learnt by heart have no gradient otherwise, and the few that are not decide alone
ITERATIVE = {"schedule": ("iterative",)}


@dataclass(frozen=True)
class StructuredPrune(Stage):
    """Remove the least important channels of linear and convolutional layers, and narrow all layers coupled to them.

    Coupled channels are found with Torch-Pruning's dependency graph (Fang et al. 2023) and every group is proved by a
    trial cut first; what cannot be cut without changing the function of the other channels is skipped with the reason
    (residual streams with zero-padded shortcuts, hard-coded views, LayerNorm widths, attention heads). Output layers
    and the model's inputs keep their widths. Importance: filter norm (Li et al. 2017), BatchNorm gain (Liu et al.
    2017) or first-order Taylor (Molchanov et al. 2019). Global spread compares scores relative to their layer's mean.

    When it helps: latency and size on any runtime, no special kernels needed; follow it with tuning or distillation.
    Taylor is the one that needs data, and depends on which; its ranking is noisy on a training split learnt by heart.
    When it does not: on thin layers (16 channels hold little to spare), and with odd widths (`round_to` 1), which
    many kernels pad back up. Costs: seconds, plus `epochs_between` per cut but the last when iterative.
    """

    name: ClassVar[str] = "prune.structured"
    effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS, TRAINABLE], gives=[CUT_CHANNELS])

    importance: str = parameter("magnitude", Choice(("magnitude", "bn_scale", "taylor")), "what ranks channels")
    spread: str = parameter("global", Choice(("global", "per_layer")), "rank in the whole model or in each layer")
    ratio: float = parameter(0.3, Real(0.05, 0.8), "share of the prunable channels that goes", limits=Real(0.001, 0.95))
    round_to: int = parameter(8, Choice((1, 4, 8, 16)), "widths that are cut become multiples of this")
    schedule: str = parameter("one_shot", Choice(("one_shot", "iterative")), "one cut, or several with tuning between")
    steps: int = parameter(3, Integer(2, 5), "cuts", limits=Integer(2, 50), when=ITERATIVE)
    epochs_between: int = parameter(
        1, Integer(1, 3), "epochs of tuning between two cuts", limits=Integer(0, 1000), when=ITERATIVE
    )
    optimizer: str = parameter("sgd", OPTIMIZER, "optimizer between cuts", scope="optimizer", when=ITERATIVE)
    lr: float = parameter(0.01, Real(1e-4, 0.1, log=True), "peak learning rate between cuts", limits=LR, when=ITERATIVE)

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        model.to(context.device)
        example = map_inputs(context.task.example(2), lambda t: t.to(context.device))
        generator = torch.Generator().manual_seed(context.seed_for(self.name, "trial"))
        groups, kept = find_groups(model, example, generator=generator)
        groups, unranked = self._rankable(model, example, groups)
        kept.update(unranked)
        if not groups:
            raise StageRefused("no layer has channels that can be removed", hint=_summary(kept))

        pruned = copy.deepcopy(model)
        cuts = self.steps if self.schedule == "iterative" else 1
        original = {g.root: len(g.units) for g in groups}
        history: list[dict[str, object]] = []
        for step in range(cuts):
            record = self._cut(pruned, groups, original, self.ratio * (step + 1) / cuts, example, context)
            if step + 1 < cuts and self.epochs_between and record["removed_channels"]:
                config = TrainConfig(epochs=self.epochs_between, lr=self.lr, optimizer=self.optimizer)
                pruned, tuned = run_fit(f"{self.name} after cut {step + 1}", pruned, config, context)
                record["tuning"] = tuned.details
            history.append(record)
        _check_outputs(model, pruned, example, groups)
        trace = self._trace(model, pruned, groups, kept, history)
        if not trace.touched:
            raise StageRefused(
                f"a ratio of {self.ratio:g} rounds to no channel at all at round_to {self.round_to}",
                hint="raise the ratio or lower round_to; prunable widths: "
                + ", ".join(f"{g.root} {original[g.root] * g.unit_size}" for g in groups[:8]),
            )
        return pruned, trace

    def _rankable(
        self, model: nn.Module, example: Inputs, groups: list[ChannelGroup]
    ) -> tuple[list[ChannelGroup], dict[str, str]]:
        """Groups that the chosen importance can measure, and the layers of the others with the reason."""
        if self.importance != "bn_scale" or not groups:
            return groups, {}
        with differentiable(model):
            graph = ChannelGraph(model, example)
            measured = [g for g in groups if len(score(graph, g, kind=self.importance, taylor={}))]
        reason = "no BatchNorm with a gain to rank its channels by"
        return measured, {path: reason for g in groups if g not in measured for path in g.layers}

    def _cut(
        self,
        model: nn.Module,
        groups: Sequence[ChannelGroup],
        original: Mapping[str, int],
        ratio: float,
        example: Inputs,
        context: Context,
    ) -> dict[str, object]:
        """Bring the share of removed channels up to `ratio`, in place. Raises StageRefused when a cut goes wrong."""
        record: dict[str, object] = {"ratio": round(ratio, 4)}
        removed = 0
        with differentiable(model):
            taylor: Mapping[str, Tensor] = {}
            if self.importance == "taylor":
                seed = context.seed_for(self.name, "taylor")
                taylor, record["taylor_batches"] = taylor_scores(
                    model, context.task, batches=TAYLOR_BATCHES, seed=seed, device=context.device
                )
            graph = ChannelGraph(model, example)
            groups = regroup(graph, groups)
            candidates = [
                Candidate(score(graph, g, kind=self.importance, taylor=taylor), original[g.root], g.unit_size)
                for g in groups
            ]
            keep = keep_global if self.spread == "global" else keep_per_layer
            widths = keep(candidates, ratio=ratio, round_to=self.round_to)
            for group, candidate, width in zip(groups, candidates, widths, strict=True):
                units = lowest(candidate.scores, candidate.remaining - width)
                if not units:
                    continue
                channels = [i for u in units for i in group.units[u]]
                if wrong := cut(graph, group.root, channels, example):
                    raise StageRefused(f"cannot remove {len(channels)} channels: {wrong}", layer=group.root)
                removed += len(channels)
        record["removed_channels"] = removed
        return record

    def _trace(
        self,
        before: nn.Module,
        after: nn.Module,
        groups: Sequence[ChannelGroup],
        kept: Mapping[str, str],
        history: Sequence[Mapping[str, object]],
    ) -> StageTrace:
        """What differs between the two models, read off the models themselves."""
        old = {path: _shapes(m) for path, m in before.named_modules()}
        touched = tuple(path for path, m in after.named_modules() if _shapes(m) != old[path])
        widths = {path: (_width(before, path), _width(after, path)) for g in groups for path in g.layers}
        unchosen = {path: "none of its channels was chosen" for path, (a, b) in widths.items() if a == b}
        reasons = {**kept, **unchosen}
        total = sum(_width(before, g.root) for g in groups)
        removed = total - sum(_width(after, g.root) for g in groups)
        details: dict[str, object] = {
            "channels": {path: [a, b] for path, (a, b) in widths.items() if a != b},
            "prunable_channels": total,
            "removed_channels": removed,
            "achieved_ratio": round(removed / total, 4),
            "outputs_kept": {path: why for path, why in reasons.items() if path in touched},
            "cuts": list(history),
        }
        skipped = {path: why for path, why in reasons.items() if path not in touched}
        return StageTrace(self.name, touched=touched, skipped=skipped, details=details)


def taylor_scores(
    model: nn.Module, task: Task, *, batches: int, seed: int, device: str = "cpu"
) -> tuple[dict[str, Tensor], int]:
    """(C,) Taylor importance of every weighted layer's channels by path, and the number of batches it is a mean over.

    Scores are averaged over batches of the training split, not gradients: near a minimum gradients cancel and would
    hide every channel. Evaluation mode, so no statistics move. Cost: one forward and backward pass per batch.
    """
    layers = {path: m for path, m in model.named_modules() if isinstance(m, WEIGHTED) and "weight" in m._parameters}
    weights = [m.weight for m in layers.values()]
    scores = {path: torch.zeros(m.weight.shape[channel_dim(m)]) for path, m in layers.items()}
    count = 0
    with evaluating(model):
        for inputs, target in itertools.islice(task.train.batches(TAYLOR_BATCH_SIZE, seed=seed), batches):
            output = prediction(call(model, map_inputs(inputs, lambda t: t.to(device))))
            loss = task.loss(task.losses()[0], output, target.to(device), label_smoothing=TAYLOR_SMOOTHING)
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            for (path, module), gradient in zip(layers.items(), gradients, strict=True):
                if gradient is not None:
                    value = measures.taylor(module.weight.detach(), gradient, dim=channel_dim(module))
                    scores[path] += value.float().cpu()
            count += 1
    return {path: total / count for path, total in scores.items()}, count


def _shapes(module: nn.Module) -> list[torch.Size]:
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return [t.shape for t in own]


def _width(model: nn.Module, path: str) -> int:
    layer = model.get_submodule(path)
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)  # type: ignore[arg-type]


def _check_outputs(before: nn.Module, after: nn.Module, example: Inputs, groups: Sequence[ChannelGroup]) -> None:
    """Refuse a pruned model whose outputs have another shape than the original's, at two batch sizes."""
    wider = map_inputs(example, lambda t: torch.cat([t, t[:1]]))
    layers = ", ".join(g.root for g in groups)
    for inputs in (example, wider):
        with evaluating(before), evaluating(after), torch.no_grad():
            expected = {k: t.shape for k, t in named_outputs(call(before, inputs)).items()}
            try:
                got = {k: t.shape for k, t in named_outputs(call(after, inputs)).items()}
            except BREAKAGE as error:
                raise StageRefused(f"the model no longer runs after cutting {layers}: {error}") from error
        if got != expected:
            raise StageRefused(f"the output is {got} instead of {expected} after cutting {layers}")


def _summary(reasons: Mapping[str, str]) -> str:
    shown = [f"{path}: {why}" for path, why in list(reasons.items())[:5]]
    return "; ".join(shown) + (f"; and {len(reasons) - 5} more" if len(reasons) > 5 else "")
