"""Weight-only quantization: weights stored as codes, arithmetic in float."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter, refusal
from petra.methods.quantize.parameters import EXCLUDE, EXCLUDE_LIMITS, excluded_layers
from petra.methods.quantize.selection import KINDS
from petra.methods.quantize.stored import STORED, store_weights
from petra.space.domains import Choice
from petra.space.effects import FLOAT_WEIGHTS, TRAINABLE, Effects
from petra.tasks.base import Task

_FORMATS = {16: "float16", 8: "int8", 4: "int4"}


@dataclass(frozen=True)
class WeightQuantize(Stage):
    """Weights stored in 16, 8 or 4 bits and decoded for use, activations in float, no calibration.

    8 bits: a scale per output channel, for all layers. 4 bits: a scale per block of inputs, with
    the clipping range of least squared error, for linear layers and embeddings; other layers get 8.
    16 bits: half precision.

    When it helps: the size of any model, at next to no loss with 8 or 16 bits; memory-bound linear
    layers at 4. When it does not: speed, since a runtime decodes 8 and 16-bit weights once, when it
    loads the file. Costs seconds.
    """

    name: ClassVar[str] = "quantize.weights"
    effects: ClassVar[Effects] = Effects.of(
        needs=[FLOAT_WEIGHTS], removes=[FLOAT_WEIGHTS, TRAINABLE]
    )

    bits: int = parameter(8, Choice((16, 8, 4)), "bits a weight is stored in", scope="weight bits")
    block: int = parameter(
        32, Choice((32, 64, 128)), "weights that share a scale at 4 bits", when={"bits": (4,)}
    )
    exclude: str = parameter("none", EXCLUDE, "layers kept in float", limits=EXCLUDE_LIMITS)

    @classmethod
    def modules(cls) -> tuple[type[nn.Module], ...]:
        return STORED

    @property
    def structure_from_weights(self) -> bool:
        return False

    @classmethod
    def objection(cls, model: nn.Module, task: Task) -> str:
        return refusal(cls(), model, task) and refusal(cls(bits=4), model, task)

    def rehearse(self, model: nn.Module, context: Context) -> nn.Module:
        """Refuses 4 bits where no layer takes them, which would be 8 under another name."""
        result, trace = self.apply(model, context)
        if self.bits == 4 and "int4" not in str(trace.details["formats"]):
            raise StageRefused("no layer's weights can be stored in 4 bits")
        return result

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        model = model.to("cpu").eval()
        example = context.task.example(2)
        result = store_weights(
            model,
            example,
            dict.fromkeys(KINDS, _FORMATS[self.bits]),
            exclude=excluded_layers(model, self.exclude, example),
            block=self.block,
        )
        return result.model, StageTrace(
            self.name, tuple(result.formats), result.skipped, details=result.details
        )
