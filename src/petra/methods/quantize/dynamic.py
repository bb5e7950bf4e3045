"""Dynamic quantization (PDQ): integer linear layers that find the range of their input while they
run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from petra.core.pipeline import Value
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter, refusal
from petra.methods.quantize.parameters import (
    EXCLUDE_ENDS,
    EXCLUDE_LIMITS,
    RECURRENT,
    RECURRENT_DOC,
    STORAGE,
    excluded_layers,
    precise_outputs,
    recurrent_formats,
)
from petra.methods.quantize.stored import STORED, store_weights
from petra.model.attention.separate import separate_attention
from petra.model.surgery import is_under
from petra.space.declare import has, where
from petra.space.effects import FLOAT_WEIGHTS, TRAINABLE, Effects
from petra.tasks.base import Task


@dataclass(frozen=True)
class DynamicQuantize(Stage):
    """Int8 linear layers whose activations are quantized on the spot, no calibration (PETRA's PDQ).

    Weights are int8 with a scale per output channel, activations u8 with one range for the whole
    tensor. Embeddings, convolutions and recurrent layers can store int8 weights too, for size: they
    compute in float, but for an LSTM where the runtime has an integer kernel for it (none has one
    for the GRU). The projections of torch's attention become linear layers of their own.

    When it helps: transformers, whose activations have ranges that no calibration settles: half the
    latency at small batches, a quarter of the bytes. When it does not: convolutional networks, and
    OpenVINO, which runs these operators one by one and slower than float (quantize.static serves
    both); layers of a few dozen channels, where finding the range costs more than is saved. Costs a
    few forward passes of two items.
    """

    name: ClassVar[str] = "quantize.dynamic"
    effects: ClassVar[Effects] = Effects.of(
        needs=[FLOAT_WEIGHTS], removes=[FLOAT_WEIGHTS, TRAINABLE]
    )

    embeddings: str = parameter(
        "int8",
        where(has("embedding"), STORAGE, "float"),
        "how weights of embeddings are stored",
        limits=STORAGE,
    )
    convolutions: str = parameter(
        "int8",
        where(has("convolution"), STORAGE, "float"),
        "how weights of convolutions are stored",
        limits=STORAGE,
    )
    recurrent: str = parameter(
        "int8",
        recurrent_formats("int8"),
        RECURRENT_DOC,
        limits=RECURRENT,
        scope="recurrent",
        implied=True,
    )
    exclude: str = parameter("none", EXCLUDE_ENDS, "layers kept in float", limits=EXCLUDE_LIMITS)

    @classmethod
    def modules(cls) -> tuple[type[nn.Module], ...]:
        return STORED

    @classmethod
    def preferred(cls, task: Task) -> Mapping[str, Value]:
        return precise_outputs(task)

    @property
    def structure_from_weights(self) -> bool:
        return False

    def rehearse(self, model: nn.Module, context: Context) -> nn.Module:
        return self.apply(model, context)[0]

    @classmethod
    def objection(cls, model: nn.Module, task: Task) -> str:
        return refusal(cls(), model, task)

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        model = model.to("cpu").eval()
        exclude = excluded_layers(model, self.exclude, context.task.example(2))
        kinds = {
            "linear": "dynamic",
            "embedding": self.embeddings,
            "convolution": self.convolutions,
            "recurrent": self.recurrent,
        }
        rest = dict.fromkeys(("attention", "other"), "int8")
        attention = [
            path for path, m in model.named_modules() if isinstance(m, nn.MultiheadAttention)
        ]
        separate_attention(model, only=[path for path in attention if not is_under(path, exclude)])
        avoid_fused_layers(model)
        result = store_weights(
            model,
            context.task.example(2),
            kinds | rest,
            exclude=exclude,
            kernels=context.kernels,
        )
        return result.model, StageTrace(
            self.name, tuple(result.formats), result.skipped, details=result.details
        )


def avoid_fused_layers(model: nn.Module) -> None:
    """Make torch's transformer layers call their linear layers.

    In evaluation they hand all weights to one fused float operator instead, unless their activation
    is one it does not know: a model would then compute something else when it runs than when it is
    exported.
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
