"""Knowledge distillation from the untouched model: on its outputs, and on those of its blocks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from petra.core.errors import StageRefused
from petra.core.pipeline import Value
from petra.core.trial import StageTrace
from petra.methods.base import Context, parameter
from petra.methods.distill.attention import attention_shown, without_dropout
from petra.methods.distill.features import Pair, Tap, matched, relative_distance, tapped, whole
from petra.methods.training import LOSS, LR, HardLoss, TrainingStage
from petra.model.copies.copying import copy_model
from petra.space.declare import has, slots, where
from petra.space.domains import Choice, Real
from petra.space.effects import FLOAT_WEIGHTS, TRAINABLE, Effects
from petra.space.outline import ModelOutline
from petra.space.space import Slot
from petra.tasks.inputs import Inputs, Outputs, call, map_inputs, predictions
from petra.training.loop import LossFunction
from petra.training.precision import choose_precision

FEATURES = (0.0, 1.0, 3.0, 10.0, 30.0)
KINDS = Choice(("values", "attention"))
MATCHED = {"features": Real(1e-9, 1e3)}


def _has_blocks(outline: ModelOutline) -> bool:
    """Whether modules other than the model itself are made of others: what is compared."""
    return any(module.parent for module in outline.modules)


def mixed_loss(hard: Tensor, soft: Tensor, alpha: float) -> Tensor:
    """(1 - alpha) * hard + alpha * soft (Hinton et al. 2015, section 2)."""
    return (1 - alpha) * hard + alpha * soft


@dataclass(frozen=True)
class Distill(TrainingStage):
    """Train all weights to reproduce the outputs of the untouched model, mixed with the task's own
    loss.

    The soft loss is the task's distance: for classification T^2 KL between softened distributions
    (Hinton et al. 2015), for regression the squared distance to the teacher's prediction. The
    teacher sees the same
    augmented, and with `mixup` mixed, batch as the student (Beyer et al. 2021); the hard loss is
    mixed in the same shares. Penalties are those of `tune`.

    With `features`, blocks are matched too: those of one name, or, for models that are built
    differently, those of one output shape in the order they run. What is compared is their output
    (Romero et al. 2015) or their attention: the probabilities where a block computes any (Jiao et
    al. 2020; Hugging Face models and nn.MultiheadAttention, which meanwhile compute them explicitly
    and drop none at random), and for convolutional blocks the energy of every position, summed over
    channels, so that widths may differ (Zagoruyko & Komodakis 2017).

    When it helps: recovering a cut model, most of all when the teacher has already learnt the
    training data by heart, so that labels carry little; with `features` where training data is
    scarce, because every block then has a target of its own. When it does not: with a teacher worse
    than the labels. Costs: tune's cost plus one teacher forward pass per step; attention
    probabilities make both models slower while they train.
    """

    name: ClassVar[str] = "distill"
    effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS, TRAINABLE])

    lr: float = parameter(0.02, Real(1e-4, 0.1, log=True), "peak learning rate", limits=LR)
    loss: str = parameter(
        "default",
        LOSS,
        "the task's loss, the hard part",
        scope="loss",
        when={"alpha": Real(0.0, 1 - 1e-6)},
    )
    alpha: float = parameter(0.9, Real(0.3, 1.0), "weight of the soft loss", limits=Real(0.0, 1.0))
    features: float = parameter(
        0.0,
        where(_has_blocks, Choice(FEATURES), *FEATURES[1:]),
        "weight of matching the teacher's blocks, 0: logits only",
        limits=Real(0.0, 1e3),
    )
    features_kind: str = parameter(
        "values",
        where(has("attention", "convolution"), KINDS, "attention"),
        "what is compared of a block's output",
        limits=KINDS,
        when=MATCHED,
    )
    match: str = parameter(
        "name", Choice(("name", "shape")), "which blocks are compared", when=MATCHED
    )
    brought: Mapping[str, Value] = slots(
        Slot("loss"),
        Slot("distance", when={"alpha": Real(1e-9, 1.0)}, always={"temperature": 4.0}),
    )

    def rehearse(self, model: nn.Module, context: Context) -> nn.Module:
        if self.features:
            self._pairs(model.eval(), context.teacher, context)
        return model

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        # A copy, since the loop's precision lays weights out anew and the next stage gets the
        # teacher as it was.
        teacher = copy_model(context.teacher).to(context.device).eval()
        model.to(context.device)
        explicit = self.features > 0 and self.features_kind == "attention"
        with attention_shown(model, teacher) if explicit else nullcontext():
            pairs = self._pairs(model, teacher, context) if self.features else ()
            shown = [
                model.get_submodule(p.student.path)
                for p in pairs
                if explicit and p.student.view is whole
            ]
            with without_dropout(shown), tapped(model, teacher, pairs) as taps:
                model, trace = self.train(
                    model, context, lambda hard: self._loss(hard, context, teacher, *taps)
                )
        return model, replace(
            trace, details={**trace.details, "blocks_matched": [str(pair) for pair in pairs]}
        )

    def _pairs(self, model: nn.Module, teacher: nn.Module, context: Context) -> tuple[Pair, ...]:
        example = map_inputs(context.task.example(2), lambda t: t.to(context.device))
        pairs = matched(model, teacher, example, kind=self.features_kind, match=self.match)
        if not pairs:
            of = "attention" if self.features_kind == "attention" else "outputs"
            name = "name and " if self.match == "name" else ""
            raise StageRefused(
                f"no block of the model has {of} of the same {name}shape as one of the teacher's",
                hint="set features to 0 to distill from the logits alone",
            )
        return pairs

    def _loss(
        self, hard: HardLoss, context: Context, teacher: nn.Module, own: Tap, theirs: Tap
    ) -> LossFunction:
        precision = choose_precision(teacher, context.device)
        precision.prepare(teacher)
        distance = context.task.distance().having(self.brought)

        def loss(student: Outputs, inputs: Inputs, target: Tensor) -> Tensor:
            with torch.no_grad(), precision.autocast():
                reference = predictions(call(teacher, inputs))
            total = mixed_loss(hard(student, target), distance(student, reference), self.alpha)
            both = [
                (s, t)
                for s, t in zip(own.outputs(), theirs.outputs(), strict=True)
                if s is not None and t is not None
            ]
            if both:
                total = total + self.features * relative_distance(*zip(*both, strict=True))
            return total

        return loss
