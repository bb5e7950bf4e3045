"""The stage around static post-training quantization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from petra.core.kernels import WEIGHT_MAX
from petra.core.pipeline import Value
from petra.core.trial import StageTrace
from petra.methods.base import Context, Stage, parameter, refusal
from petra.methods.quantize.calibration import Calibration
from petra.methods.quantize.parameters import (
    CODES,
    CODES_DOC,
    EMBEDDINGS,
    EMBEDDINGS_DOC,
    EXCLUDE,
    EXCLUDE_LIMITS,
    KEEP_DOC,
    KEEP_FLOAT,
    KEEP_LIMITS,
    RECURRENT,
    RECURRENT_DOC,
    STORAGE,
    check_excluded,
    check_some_are_left,
    excluded_layers,
    precise_ends,
    recurrent_formats,
)
from petra.methods.quantize.ptq import QuantizationResult, quantize_static
from petra.methods.quantize.quantized_share import check_kernels
from petra.methods.quantize.stored import replace_layers
from petra.space.declare import where
from petra.space.domains import BOOLEAN, Choice, Integer, Real
from petra.space.effects import FLOAT_WEIGHTS, INPUT_GRADIENTS, TRAINABLE, Effects
from petra.space.outline import ModelOutline
from petra.tasks.base import Task

EQUALIZE = Choice(("none", "cross_layer", "smooth"))


def _has_products(outline: ModelOutline) -> bool:
    """Whether there are linear layers besides a last one: inputs that can be smoothed."""
    return len(outline.of_role("linear")) > 1


@dataclass(frozen=True)
class StaticQuantize(Stage):
    """Int8 weights and activations with ranges fixed by calibration (Jacob et al. 2018), no
    training.

    Affine activations per tensor, signed symmetric weights per output channel; convolution or
    linear with its batch norm and ReLU, and residual additions, become single integer operators
    where the runtime has their kernels. In transformers the linear layers are quantized; attention
    products, softmax and norms stay float.

    When it helps: convolutional networks on CPUs, a quarter of the bytes and two to three times the
    speed for a few tenths of a point; transformers with `equalize: smooth`. When it does not:
    regression with fine outputs, for which layers that read inputs and put outputs out stay float
    and nothing that calibration shows is clipped unless one says otherwise: keep the most sensitive
    ones too, or do without. Costs one forward pass over the calibration samples; `keep_float` two,
    and one over 128 of them for every layer.
    """

    name: ClassVar[str] = "quantize.static"
    effects: ClassVar[Effects] = Effects.of(
        needs=[FLOAT_WEIGHTS], removes=[FLOAT_WEIGHTS, TRAINABLE, INPUT_GRADIENTS]
    )

    observer: str = parameter(
        "histogram",
        Choice(("minmax", "histogram", "percentile", "mse")),
        "how activation ranges are chosen",
    )
    samples: int = parameter(
        512,
        Choice((128, 256, 512, 1024)),
        "calibration items from the training split",
        limits=Integer(1, 10**6),
    )
    exclude: str = parameter("none", EXCLUDE, "layers kept in float", limits=EXCLUDE_LIMITS)
    keep_float: int = parameter(0, KEEP_FLOAT, KEEP_DOC, limits=KEEP_LIMITS)
    equalize: str = parameter(
        "none",
        where(_has_products, EQUALIZE, "smooth"),
        "scales moved beforehand between channels of layers (cross_layer), or from activations to"
        " weights (smooth)",
        limits=EQUALIZE,
    )
    alpha: float = parameter(
        0.5,
        Choice((0.4, 0.5, 0.6, 0.75)),
        "share of the difficulty that goes to the weights",
        limits=Real(0.0, 1.0),
        when={"equalize": ("smooth",)},
    )
    correct_bias: bool = parameter(False, BOOLEAN, "correct the shift of each layer's mean output")
    embeddings: str = parameter("float", EMBEDDINGS, EMBEDDINGS_DOC, limits=STORAGE)
    recurrent: str = parameter(
        "float",
        recurrent_formats("float"),
        RECURRENT_DOC,
        limits=RECURRENT,
        scope="recurrent",
        implied=True,
    )
    weight_max: int = parameter(
        WEIGHT_MAX, CODES, CODES_DOC, limits=Integer(1, 127), scope="weight codes"
    )

    @property
    def structure_from_weights(self) -> bool:
        return self.keep_float > 0

    @classmethod
    def preferred(cls, task: Task) -> Mapping[str, Value]:
        """Of values, an error far out costs most."""
        unclipped = {"observer": "minmax"} if task.judged_by_error else {}
        return {**precise_ends(task), **unclipped}

    @classmethod
    def objection(cls, model: nn.Module, task: Task) -> str:
        return refusal(cls(), model, task)

    def rehearse(self, model: nn.Module, context: Context) -> nn.Module:
        example = context.task.example(2)
        exclude = excluded_layers(model, self.exclude, example)
        formats = {"recurrent": self.recurrent}
        stored, _ = replace_layers(model, formats, exclude, context.kernels)
        check_kernels(model.eval(), example)
        if not stored and (self.keep_float or self.exclude != "none"):
            check_some_are_left(model, exclude, self.keep_float)
        return model

    def apply(self, model: nn.Module, context: Context) -> tuple[nn.Module, StageTrace]:
        model = model.to("cpu").eval()
        exclude = excluded_layers(model, self.exclude, context.task.example(2))
        check_excluded(model, exclude)
        formats = {"embedding": self.embeddings, "recurrent": self.recurrent}
        stored, left = replace_layers(model, formats, exclude, context.kernels)
        result = quantize_static(
            model,
            context.task.example(2),
            Calibration(context, self.samples),
            observer=self.observer,
            exclude=exclude,
            kernels=context.kernels,
            weight_max=self.weight_max,
            equalize=self.equalize,
            alpha=self.alpha,
            correct_bias=self.correct_bias,
            keep_float=self.keep_float,
            interface=context.interface,
        )
        return result.model, traced_quantization(self.name, result, self.samples, stored, left)


def traced_quantization(
    name: str,
    result: QuantizationResult,
    samples: int,
    stored: tuple[str, ...],
    left: dict[str, str],
) -> StageTrace:
    """The trace of a stage that asked for so many `samples` and had `replace_layers` return the
    last two.
    """
    details = {
        "calibration_samples": result.samples,
        "calibration_samples_asked": samples,
        **result.shares.as_details(),
        **result.notes,
    }
    skipped = {
        path: reason for path, reason in result.layers_skipped.items() if path not in stored
    } | left
    return StageTrace(name, (*stored, *result.layers_quantized), skipped, details=details)
