"""The stage around static post-training quantization."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from petra.core.errors import StageRefused
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter
from petra.methods.quantize.ptq import quantize_static
from petra.space.domains import Choice, Integer, Text
from petra.space.effects import FLOAT_WEIGHTS, TRAINABLE, Effects
from petra.tasks.inputs import Inputs, batch_size, map_inputs

LAYER_TYPES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def excluded_layers(model: nn.Module, exclude: str) -> frozenset[str]:
    """Module paths meant by `exclude`: "none", "first", "last", "ends" (both), or paths separated by commas.

    First and last are in order of definition among convolution and linear layers.
    """
    layers = [name for name, module in model.named_modules() if isinstance(module, LAYER_TYPES)]
    named = {"none": [], "first": layers[:1], "last": layers[-1:], "ends": [*layers[:1], *layers[-1:]]}
    return frozenset(named[exclude] if exclude in named else (part.strip() for part in exclude.split(",")))


@dataclass(frozen=True)
class StaticQuantize(Stage):
    """Int8 weights and activations with ranges fixed by calibration (Jacob et al. 2018), no training.

    Unsigned affine activations per tensor, signed symmetric weights per output channel; convolution or linear with its
    batch norm and ReLU, and residual additions, become single integer operators in ONNX Runtime.

    When it helps: convolutional networks on CPUs, a quarter of the bytes and two to three times the speed for a few
    tenths of a point. When it does not: activations with a few huge channels (most transformers), and regression with
    fine outputs: exclude the last layer, or do without. Costs one forward pass over the calibration samples.
    """

    name: ClassVar[str] = "quantize.static"
    effects: ClassVar[Effects] = Effects.of(needs=[FLOAT_WEIGHTS], removes=[FLOAT_WEIGHTS, TRAINABLE])

    observer: str = parameter("histogram", Choice(("minmax", "histogram")), "how activation ranges are chosen")
    samples: int = parameter(
        512, Choice((128, 256, 512, 1024)), "calibration items from the training split", limits=Integer(1, 10**6)
    )
    exclude: str = parameter(
        "none",
        Choice(("none", "first", "last", "ends")),
        "layers kept in float",
        limits=Text("none", "none, first, last, ends, or module paths separated by commas"),
    )

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        model = model.to("cpu").eval()
        result = quantize_static(
            model,
            context.task.example(2),
            self._calibration(context),
            observer=self.observer,
            exclude=excluded_layers(model, self.exclude),
        )
        details = {
            "calibration_samples": result.samples,
            "calibration_samples_asked": self.samples,
            "share_of_macs_int8": round(result.macs_share, 4),
            "share_of_weights_int8": round(result.weights_share, 4),
        }
        return result.model, StageTrace(self.name, result.layers_quantized, result.layers_skipped, details=details)

    def _calibration(self, context: Context) -> Iterator[Inputs]:
        """Exactly `samples` items of the shuffled training split, without augmentation; fewer only if it is smaller."""
        left = self.samples
        for inputs, _ in context.task.train.batches(64, seed=context.seed_for("calibration")):
            taken = min(left, batch_size(inputs))
            if taken == 0:
                return
            context.progress(self.samples - left, self.samples, "calibration")
            yield map_inputs(inputs, lambda t, k=taken: t[:k])  # type: ignore[misc]
            left -= taken
        if left == self.samples:
            raise StageRefused("the training split yields no calibration samples")
