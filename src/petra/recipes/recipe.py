"""What a recipe is written in: steps with alternatives, and values that model and data decide."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from petra.core.pipeline import Value
from petra.space.outline import ModelOutline

UNKNOWN_ITEMS = 10_000  # taken for the size of a training split that does not know it
BATCH = 64
MOST_EPOCHS = 60  # of a training split of a few items
_SHARE = 0.2  # of the parameters, from which on a kind of layer makes a family
_NARROW = 32  # channels
_REFIT_MACS = 3e12  # a minute or two of one core


@dataclass(frozen=True)
class Circumstances:
    """What recipes are chosen and sized by: the untouched model's outline and multiply-accumulates
    for one item, the number of training items, whether the quality is the error of predicted
    values, whether the runtime gains from activations quantized on the spot, and the kinds of
    recurrent layers that it has integer kernels for.
    """

    outline: ModelOutline
    macs: int
    items: int = UNKNOWN_ITEMS
    judged_by_error: bool = False
    dynamic: bool = True
    integer: frozenset[str] = frozenset()

    @property
    def traits(self) -> frozenset[str]:
        """Words that recipes are written for, which of them hold:

        - "convolutional", "recurrent": such layers have a fifth of the parameters
        - "integer recurrent": they are recurrent layers that the runtime has integer kernels for
        - "attention": some module is attention
        - "regression": what is judged is an error
        - "narrow": half of the layers put out fewer than 32 channels
        - "slow to refit": to refit all layers one by one would take minutes
        - "static only": activations quantized on the spot gain nothing on the runtime
        """
        weights = self.outline.of_role("convolution", "linear", "embedding", "recurrent")
        total = sum(m.parameters for m in weights) or 1
        share = {
            role: sum(m.parameters for m in weights if m.role == role) / total
            for role in ("convolution", "recurrent")
        }
        widths = sorted(m.outputs for m in weights if m.role in ("convolution", "linear"))
        refit = 2 * 512 * self.macs * len(weights)
        holds = {
            "convolutional": share["convolution"] >= _SHARE,
            "recurrent": share["recurrent"] >= _SHARE,
            "integer recurrent": share["recurrent"] >= _SHARE
            and bool(self.outline.of_kind(*self.integer)),
            "attention": bool(self.outline.of_role("attention")),
            "regression": self.judged_by_error,
            "narrow": bool(widths) and widths[len(widths) // 2] < _NARROW,
            "slow to refit": refit > _REFIT_MACS,
            "static only": not self.dynamic,
        }
        return frozenset(name for name, yes in holds.items() if yes)


@dataclass(frozen=True)
class Effort:
    """A number of epochs: `epochs`, or as many as make `steps` of a small training split, within
    `macs` multiply-accumulates (with a backward pass and a teacher: four forward passes an item).
    """

    epochs: int
    steps: int
    macs: float

    def of(self, here: Circumstances) -> int:
        needed = math.ceil(self.steps / max(1, here.items // BATCH))
        wanted = max(self.epochs, min(needed, MOST_EPOCHS))
        return max(1, min(wanted, int(self.macs / (4 * max(1, here.macs) * here.items))))


@dataclass(frozen=True)
class Blocks:
    """A share of the model's repeated blocks, at least one."""

    share: float

    def of(self, here: Circumstances) -> int:
        return max(1, round(self.share * len(here.outline.blocks)))


Params = Mapping[str, Value | Effort | Blocks]


@dataclass(frozen=True)
class Step:
    """A stage, at its defaults but for `params`, for models with all traits in `on` and none in
    `off`.
    """

    stage: str
    params: Params = field(default_factory=dict)
    on: frozenset[str] = frozenset()
    off: frozenset[str] = frozenset()

    def suits(self, traits: frozenset[str]) -> bool:
        return self.on <= traits and not self.off & traits


OneOf = tuple[Step | None, ...]
"""Alternatives, of which the first that acts is taken; None: the step may be left out."""


@dataclass(frozen=True)
class Recipe:
    """Steps in order, for models with all traits in `on` and none in `off`; `why` says what it is
    good for and where it is from.
    """

    why: str
    steps: tuple[OneOf, ...]
    on: frozenset[str] = frozenset()
    off: frozenset[str] = frozenset()

    def suits(self, traits: frozenset[str]) -> bool:
        return self.on <= traits and not self.off & traits
