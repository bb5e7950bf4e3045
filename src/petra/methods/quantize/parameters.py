"""Parameters that several quantization stages have, and what `exclude` means."""

from __future__ import annotations

from torch import nn

from petra.core.errors import StageRefused
from petra.core.kernels import WEIGHT_MAX
from petra.model.kinds import INTEGER_KERNELS, Convolution
from petra.model.surgery import is_under
from petra.space.declare import FromModel, has, where
from petra.space.domains import Choice, Integer, Text
from petra.space.outline import ModelOutline

EXCLUDE_ENDS = Choice(("none", "first", "last", "ends"))
EXCLUDE = where(has("convolution"), Choice((*EXCLUDE_ENDS.values, "convolutions")), "convolutions")
EXCLUDE_LIMITS = Text(
    "none", "none, first, last, ends, convolutions, or module paths separated by commas"
)

KEEP_FLOAT, KEEP_LIMITS = Choice((0, 1, 2, 4)), Integer(0, 10_000)
KEEP_DOC = "layers that cost most when quantized, kept in float"

STORAGE = Choice(("float", "int8"))
EMBEDDINGS = where(has("embedding"), STORAGE, "int8")
RECURRENT = Choice(("float", "int8", "dynamic"))
RECURRENT_DOC = (
    "how weights of recurrent layers are stored; dynamic computes in integers, where the runtime"
    " has a kernel for the layer (ONNX Runtime for the LSTM), and is int8 elsewhere"
)
EMBEDDINGS_DOC = "how embedding tables are stored"

CODES = Choice((WEIGHT_MAX,))
CODES_DOC = (
    "largest weight code: 64 is right on every CPU, 127 on those with VNNI or dot products, 7 is 4"
    " bits"
)


def recurrent_formats(default: str) -> FromModel:
    """Formats for recurrent layers, as far as the model has such; the default where it has none."""

    def of(model: ModelOutline) -> Choice:
        if not model.of_role("recurrent"):
            return Choice((default,))
        return RECURRENT if model.of_kind("LSTM") else Choice(("float", "int8"))

    return FromModel(of, RECURRENT)


def excluded_layers(model: nn.Module, exclude: str) -> frozenset[str]:
    """Module paths meant by `exclude`: "none", "first", "last", "ends" (both), "convolutions" (all
    of them), or paths separated by commas.

    First and last are in order of definition among convolution and linear layers. Raises
    StageRefused where there is no convolution to exclude.
    """
    layers = [name for name, module in model.named_modules() if isinstance(module, INTEGER_KERNELS)]
    named = {
        "none": [],
        "first": layers[:1],
        "last": layers[-1:],
        "ends": [*layers[:1], *layers[-1:]],
        "convolutions": [name for name, m in model.named_modules() if isinstance(m, Convolution)],
    }
    if exclude == "convolutions" and not named[exclude]:
        raise StageRefused("convolutions are to be excluded, but the model has none")
    return frozenset(
        named[exclude] if exclude in named else (part.strip() for part in exclude.split(","))
    )


def check_excluded(model: nn.Module, exclude: frozenset[str]) -> None:
    """Raise StageRefused unless every name in `exclude` is a module or the beginning of a path."""
    paths = {name for name, _ in model.named_modules()}
    for name in sorted(exclude):
        if not any(is_under(path, frozenset({name})) for path in paths):
            raise StageRefused("is to be excluded, but the model has no such module", layer=name)
