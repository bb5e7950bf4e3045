"""Width pruning of recurrent layers: hidden units go from all gates, and with them the weights of
whatever reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter, refusal
from petra.methods.effect import check_effect, held_elsewhere
from petra.methods.prune.allocate import Candidate, keep_per_layer, lowest
from petra.methods.prune.importance import coupled
from petra.methods.prune.narrowed import in_words, removed_share
from petra.methods.prune.statistics import gather
from petra.methods.prune.zeros import restore_two_of_four
from petra.model.channels.hidden import readers_of
from petra.model.channels.narrow import objection, of_units, without
from petra.space.domains import Choice, Real
from petra.space.effects import FLOAT_WEIGHTS, TRAINABLE, Effects
from petra.tasks.base import Task
from petra.tasks.inputs import Inputs, map_inputs

ITEMS = 8
MOST = 0.95
"""The largest share of a layer's units that may go."""
NONE = "the model has no recurrent layers (nn.GRU, nn.LSTM, nn.RNN)"


@dataclass(frozen=True)
class RecurrentPrune(Stage):
    """Remove the least important hidden units of GRU, LSTM and RNN layers: rows and columns of all
    gates, of all layers and directions of a stack alike, and the inputs of the layers that read
    them.

    Readers are found by trying and every cut is proved: the narrower model must compute what the
    model does when nothing reads those units. Importance: of the weights that make a unit and of
    those that read it (a group, Fang et al. 2023; for LSTMs, Wen et al. 2018, "Intrinsic Sparse
    Structures"), the norm, or the first-order share in the loss (Molchanov et al. 2019).

    When it helps: recurrent layers, on any runtime: the time of a step goes with the square of the
    width. Follow it with tuning or distillation. When it does not: layers whose units are mixed
    before a layer reads them (a LayerNorm, attention), or are returned; those are skipped with the
    reason. Costs: seconds; Taylor 16 training batches for each layer.
    """

    name: ClassVar[str] = "prune.recurrent"
    effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS, TRAINABLE])

    importance: str = parameter("magnitude", Choice(("magnitude", "taylor")), "what ranks units")
    ratio: float = parameter(
        0.3, Real(0.05, 0.9), "share of the units that goes", limits=Real(0.001, MOST)
    )
    round_to: int = parameter(
        8, Choice((1, 4, 8, 16)), "widths that are cut become multiples of this"
    )

    @property
    def structure_from_weights(self) -> bool:
        return False

    def rehearse(self, model: nn.Module, context: Context) -> nn.Module:
        return replace(self, importance="magnitude").apply(model, context)[0]

    @classmethod
    def objection(cls, model: nn.Module, task: Task) -> str:
        if not recurrent_layers(model):
            return NONE
        why = refusal(cls(ratio=MOST, round_to=1), model, task)
        # Layers with 2:4 zeros want fours.
        return why if why and refusal(cls(ratio=MOST, round_to=4), model, task) else ""

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        model.to(context.device)
        example = map_inputs(context.task.example(ITEMS), lambda t: t.to(context.device))
        paths = recurrent_layers(model)
        if not paths:
            raise StageRefused(NONE)
        pruned = model
        kept: dict[str, str] = {}
        widths: dict[str, list[int]] = {}
        touched: dict[str, None] = {}
        for path in paths:
            before = int(_layer(pruned, path).hidden_size)
            pruned, readers, why = self._cut(pruned, path, example, context)
            if why:
                kept[path] = why
                continue
            widths[path] = [before, int(_layer(pruned, path).hidden_size)]
            touched |= dict.fromkeys((path, *readers))
        if not widths:
            raise StageRefused(f"no hidden units can go ({in_words(kept)})")
        check_effect(
            "removes", removed_share(model, pruned, example), "model", asked=self.ratio,
            rest=held_elsewhere(model, tuple(touched), kept),
        )  # fmt: skip
        details: dict[str, object] = {
            "hidden_units": widths,
            "outputs_kept": {path: why for path, why in kept.items() if path in touched},
        }
        if again := restore_two_of_four(pruned):
            details["two_of_four_again"] = again
        skipped = {path: why for path, why in kept.items() if path not in touched}
        return pruned, StageTrace(self.name, tuple(touched), skipped, details=details)

    def _cut(
        self, model: nn.Module, path: str, example: Inputs, context: Context
    ) -> tuple[nn.Module, tuple[str, ...], str]:
        """The model with a narrower layer, and who read it; or as it is, and why."""
        readers, why = readers_of(model, path, example)
        why = why or objection(model, path, readers)
        if why:
            return model, (), why
        hidden = int(_layer(model, path).hidden_size)
        units = range(hidden)
        sums = of_units(model, path, readers, self._elements(model, context))
        if self.importance == "magnitude":
            sums = (sums[0].sqrt(), sums[1].sqrt())
        scores = coupled([(part, units) for part in sums], hidden, "mean")
        candidate = Candidate(scores, hidden)
        (keep,) = keep_per_layer([candidate], ratio=self.ratio, round_to=self.round_to)
        if keep == hidden:
            return model, (), f"{self.ratio:g} of {hidden} units rounds to none"
        cut, why = without(model, path, readers, lowest(scores, hidden - keep), example)
        return cut, tuple(reader.path for reader in readers), why

    def _elements(self, model: nn.Module, context: Context) -> Callable[[str, Tensor], Tensor]:
        """What each weight counts, by its parameter's name and value."""
        if self.importance == "magnitude":
            return lambda name, weight: weight.square()
        seed = context.seed_for(self.name, self.importance)
        # cuDNN has no gradients of recurrent layers in evaluation mode.
        with torch.backends.cudnn.flags(enabled=False):
            evidence, _ = gather("taylor", model, context.task, seed=seed, device=context.device)
        return lambda name, weight: weight.abs().cpu() * evidence.get(name, torch.zeros(()))


def recurrent_layers(model: nn.Module) -> tuple[str, ...]:
    """Paths of torch's recurrent layers, each module once; the model itself is none."""
    return tuple(
        path for path, module in model.named_modules() if path and isinstance(module, nn.RNNBase)
    )


def _layer(model: nn.Module, path: str) -> nn.RNNBase:
    layer = model.get_submodule(path)
    assert isinstance(layer, nn.RNNBase)
    return layer
