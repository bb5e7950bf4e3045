from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from petra.plugins import (
    FLOAT_WEIGHTS,
    Context,
    Effects,
    Integer,
    Stage,
    StageRefused,
    StageTrace,
    parameter,
)


@dataclass(frozen=True)
class Round(Stage):
    """Round every weight to so many significant bits.

    When it helps: where files are packed for a download. When it does not: in memory."""

    name: ClassVar[str] = "acme.round"
    effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS])
    bits: int = parameter(6, Integer(3, 12), "significant bits that stay")

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        layers = {p: m for p, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        if not layers:
            raise StageRefused("no layer has weights")
        for m in layers.values():
            mantissa, exponent = torch.frexp(m.weight.data)
            m.weight.data = ((mantissa * 2**self.bits).round() / 2**self.bits).ldexp(exponent)
        return model, StageTrace(self.name, tuple(layers))
