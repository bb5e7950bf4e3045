"""Fine-tuning of all weights with the task's own loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from petra.core.pipeline import Value
from petra.core.trial import StageTrace
from petra.methods.base import Context
from petra.methods.training import TrainingStage
from petra.space.declare import slots
from petra.space.effects import FLOAT_WEIGHTS, TRAINABLE, Effects
from petra.space.space import Slot


@dataclass(frozen=True)
class Tune(TrainingStage):
    """Train all weights on the task's loss, for a fixed number of epochs on a rate that ends at
    zero.

    SGD with Nesterov momentum or AdamW, warm-up then cosine or one-cycle decay, gradient clipping;
    bf16 autocast and channels-last where the hardware gains from them. Mixup (Zhang et al. 2018)
    trains on mixtures of pairs of items.

    A penalty shapes the weights meanwhile. `bn_l1` (Liu et al. 2017), `group_lasso` (Wen et al.
    2016), `growing` (Wang et al. 2021) and `hoyer` (Yang et al. 2020) make channels unequal, so
    that cutting the weak ones costs less: put them before pruning. The last three act on all that
    `prune.structured` would cut with a channel: its filters in every coupled layer, the gains of
    norms and the weights that read it (Fang et al. 2023, "DepGraph"), found at the cost of three
    forward passes per group of coupled layers. `orthogonality` (Bansal et al. 2018), `norm`
    (Georgiou et al. 2021) and `adaptive` (weights with little gradient decay most) regularise. Each
    is a sum over layers or groups of its own scale, so weights are not comparable between them.

    When it helps: after every stage that damages weights (pruning, decomposition). When it does
    not: on a model that was trained to zero loss on the very same data; distill instead; a penalty
    within few steps at a low rate, which hardly moves a norm. Costs: epochs x (forward + backward)
    over the training split.
    """

    name: ClassVar[str] = "tune"
    effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS, TRAINABLE])

    brought: Mapping[str, Value] = slots(Slot("loss", always={"label_smoothing": 0.0}))

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        return self.train(
            model, context, lambda hard: lambda outputs, inputs, target: hard(outputs, target)
        )
